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

/// A secret of fewer characters, or one that could be a word, is often found where it is not the secret.
const SHORT: usize = 8;
const LONGEST_WORD: usize = 20;

/// A form of a token.
pub(super) struct Form {
    text: SecretString,
    /// In lower case, as names of fields are.
    name: SecretString,
    /// Whether it could be a word of the text, so that it is the secret only where it is a whole value.
    pub is_word: bool,
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
        let beginnings = forms.iter().filter_map(|(form, _)| form.expose_secret().bytes().next());
        for byte in beginnings {
            if let Some(begins) = first.get_mut(usize::from(byte)) {
                *begins = true;
            }
        }
        Self { all: forms.into_iter().map(|(text, is_word)| Form::new(text, is_word)).collect(), first }
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
    fn new(text: SecretString, is_word: bool) -> Self {
        let finder = Finder::new(text.expose_secret()).into_owned();
        let name = text.expose_secret().to_ascii_lowercase().into();
        Self { text, name, is_word, finder }
    }

    /// Whether the name of a field, which is in lower case, holds it.
    pub fn is_in_name(&self, name: &str) -> bool {
        name.len() >= self.text().len() && !self.is_word && name.contains(self.name.expose_secret())
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

fn add_forms(forms: &mut Vec<(SecretString, bool)>, secret: &str) {
    if secret.len() < SHORTEST {
        return;
    }
    forms.push((secret.into(), is_wordlike(secret)));
    let mut add = |form: SecretString| forms.push((form, false));
    for before in 0..3 {
        add(in_base64(secret, before, |bytes| STANDARD_NO_PAD.encode(bytes)));
        add(in_base64(secret, before, |bytes| URL_SAFE_NO_PAD.encode(bytes)));
    }
    for before in 0..5 {
        let upper = in_base32(secret, before);
        add(upper.to_ascii_lowercase().into());
        add(upper.into());
    }
    add(secret.bytes().map(|byte| format!("{byte:02x}")).collect::<String>().into());
    add(secret.bytes().map(|byte| format!("{byte:02X}")).collect::<String>().into());
    // Most secrets look the same in both alphabets of base64.
    forms.sort_by(|(a, _), (b, _)| a.expose_secret().cmp(b.expose_secret()));
    forms.dedup_by(|(a, _), (b, _)| a.expose_secret() == b.expose_secret());
}

/// Short, or letters of one case (the first one may be large) and at most four digits behind them.
fn is_wordlike(secret: &str) -> bool {
    let letters = secret.trim_end_matches(|character: char| character.is_ascii_digit());
    let rest = letters.get(1..).unwrap_or_default();
    let one_case = |is_case: fn(&u8) -> bool| rest.bytes().all(|byte| is_case(&byte));
    let is_word = letters.bytes().all(|byte| byte.is_ascii_alphabetic())
        && !letters.is_empty()
        && (one_case(u8::is_ascii_lowercase) || one_case(u8::is_ascii_uppercase))
        && secret.len() - letters.len() <= 4;
    secret.len() < SHORT || (is_word && secret.len() < LONGEST_WORD)
}

const BASE32: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";

/// The same for base32 (RFC 4648 §6), with this many bytes, modulo five, before it.
fn in_base32(secret: &str, before: usize) -> String {
    let bytes = [&[0].repeat(before), secret.as_bytes()].concat();
    let bit = |at: usize| bytes.get(at / 8).is_some_and(|byte| byte >> (7 - at % 8) & 1 == 1);
    let character = |at: usize| {
        let five = (at * 5..at * 5 + 5).fold(0, |sum, at| sum * 2 + usize::from(bit(at)));
        BASE32.get(five).copied().map_or('A', char::from)
    };
    ((before * 8).div_ceil(5)..bytes.len() * 8 / 5).map(character).collect()
}

/// How a secret looks inside of a longer text that is coded as a whole, with this many bytes, modulo three, before it:
/// the characters that depend on nothing but the secret.
fn in_base64(secret: &str, before: usize, encode: impl Fn(&[u8]) -> String) -> SecretString {
    let bytes = [&[0].repeat(before), secret.as_bytes()].concat();
    let (first, end) = ((before * 8).div_ceil(6), bytes.len() * 8 / 6);
    encode(&bytes).get(first..end).unwrap_or_default().into()
}
