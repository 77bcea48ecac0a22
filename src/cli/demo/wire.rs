//! Plain HTTP, as a caller that holds a token speaks it to the API, and a thief to the provider.

use bytes::Bytes;
use http::{
    HeaderMap,
    header::{CONTENT_TYPE, WWW_AUTHENTICATE},
};
use url::form_urlencoded;

use super::Surprise;
use crate::{
    http::{for_token_endpoints, read_body},
    proto::Header,
};

/// Far above anything that the sandbox answers.
const MAX_BODY: usize = 1 << 20;

/// An answer.
pub struct Answer {
    /// Its status code.
    pub status: u16,
    /// The values of its `WWW-Authenticate` fields.
    pub challenges: Vec<String>,
    /// Its body.
    pub body: Bytes,
}

/// Gets a resource, with header fields as bearerd hands them out.
pub async fn get(url: &str, headers: &[Header]) -> Result<Answer, Surprise> {
    let client = for_token_endpoints().map_err(unreachable)?;
    let request = headers.iter().fold(client.get(url), |request, header| request.header(&header.name, &header.value));
    let response = request.send().await.map_err(unreachable)?;
    let (status, challenges) = (response.status().as_u16(), challenges(response.headers()));
    Ok(Answer { status, challenges, body: read_body(response, MAX_BODY).await.map_err(unreachable)? })
}

/// Posts a form and returns the status code and the body.
pub async fn post(url: &str, form: &[(&str, &str)]) -> Result<(u16, String), Surprise> {
    let body = form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish();
    let request = for_token_endpoints().map_err(unreachable)?.post(url).body(body);
    let response =
        request.header(CONTENT_TYPE, "application/x-www-form-urlencoded").send().await.map_err(unreachable)?;
    let status = response.status().as_u16();
    let body = read_body(response, MAX_BODY).await.map_err(unreachable)?;
    Ok((status, String::from_utf8_lossy(&body).into_owned()))
}

fn challenges(headers: &HeaderMap) -> Vec<String> {
    headers.get_all(WWW_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok()).map(str::to_owned).collect()
}

fn unreachable(error: impl std::error::Error) -> Surprise {
    Surprise::Unreachable(error.to_string())
}
