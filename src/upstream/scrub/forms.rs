//! The forms in which a token can come back.

use base64::{
    Engine,
    engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE_NO_PAD},
};

use memchr::memmem::Finder;

use crate::{
    secret::{ExposeSecret, SecretString},
    token::{Token, TokenType},
};

/// A shorter secret would be found by chance.
const SHORTEST: usize = 6;

/// A form of a token.
pub(super) struct Form {
    text: SecretString,
    finder: Finder<'static>,
}

/// Every form of a token that is looked for, besides those that are escaped.
pub(super) struct Forms {
    all: Vec<Form>,
    /// Which bytes some form begins with: most of a text is passed over with one look.
    first: [bool; 256],
}

impl Forms {
    /// The forms of a token.
    pub fn of(token: &Token) -> Self {
        let value = token.value.expose_secret();
        let mut forms = Vec::new();
        add_forms(&mut forms, value);
        match &token.kind {
            TokenType::Bearer => {}
            TokenType::Basic => {
                password(value).into_iter().for_each(|password| add_forms(&mut forms, password.expose_secret()));
            }
            // `Token abc`, `Key id="abc"`: the word alone is as good.
            TokenType::ApiKey { header: _ } => {
                let words = value.split([' ', '\t', '"', ',']).filter(|word| word.len() > SHORTEST && *word != value);
                words.for_each(|word| add_forms(&mut forms, word));
            }
        }
        let mut first = [false; 256];
        let beginnings = forms.iter().filter_map(|form| form.expose_secret().bytes().next());
        for byte in beginnings {
            if let Some(begins) = first.get_mut(usize::from(byte)) {
                *begins = true;
            }
        }
        Self { all: forms.into_iter().map(Form::new).collect(), first }
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Form> {
        self.all.iter()
    }

    /// Those that begin with this byte, if any does.
    pub fn beginning_with(&self, first: u8) -> Option<impl Iterator<Item = &Form>> {
        let some = self.first.get(usize::from(first)).copied().unwrap_or(false);
        some.then(|| self.iter().filter(move |form| form.text().first() == Some(&first)))
    }
}

impl Form {
    fn new(text: SecretString) -> Self {
        let finder = Finder::new(text.expose_secret()).into_owned();
        Self { text, finder }
    }

    /// The form itself.
    pub fn text(&self) -> &[u8] {
        self.text.expose_secret().as_bytes()
    }

    /// Where it stands in a text, as it is.
    pub fn places_in<'a>(&'a self, text: &'a [u8]) -> impl Iterator<Item = usize> + 'a {
        self.finder.find_iter(text)
    }
}

/// RFC 7617 §2: the password is what stands behind the first colon.
fn password(value: &str) -> Option<SecretString> {
    let pair = String::from_utf8(STANDARD.decode(value).ok()?).ok()?;
    pair.split_once(':').map(|(_, password)| password.to_owned().into())
}

fn add_forms(forms: &mut Vec<SecretString>, secret: &str) {
    if secret.len() < SHORTEST {
        return;
    }
    forms.push(secret.into());
    for before in 0..3 {
        forms.push(in_base64(secret, before, |bytes| STANDARD_NO_PAD.encode(bytes)));
        forms.push(in_base64(secret, before, |bytes| URL_SAFE_NO_PAD.encode(bytes)));
    }
    forms.push(secret.bytes().map(|byte| format!("{byte:02x}")).collect::<String>().into());
    forms.push(secret.bytes().map(|byte| format!("{byte:02X}")).collect::<String>().into());
    // Most secrets look the same in both alphabets of base64.
    forms.sort_by(|a, b| a.expose_secret().cmp(b.expose_secret()));
    forms.dedup_by(|a, b| a.expose_secret() == b.expose_secret());
}

/// How a secret looks inside of a longer text that is coded as a whole, with this many bytes, modulo three, before it:
/// the characters that depend on nothing but the secret.
fn in_base64(secret: &str, before: usize, encode: impl Fn(&[u8]) -> String) -> SecretString {
    let bytes = [&[0].repeat(before), secret.as_bytes()].concat();
    let (first, end) = ((before * 8).div_ceil(6), bytes.len() * 8 / 6);
    encode(&bytes).get(first..end).unwrap_or_default().into()
}
