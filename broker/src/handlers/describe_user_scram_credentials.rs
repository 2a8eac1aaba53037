//! DescribeUserScramCredentials: nobody logs in, so no user has credentials (KIP-554).

use odradek_protocol::ResponseError;
use odradek_protocol::messages::describe_user_scram_credentials_response as response;
use odradek_protocol::messages::{
    DescribeUserScramCredentialsRequest, DescribeUserScramCredentialsResponse,
};

use crate::context::Context;
use crate::session::Session;

pub(crate) async fn handle(
    _: &Context,
    _: &Session,
    _: i16,
    request: DescribeUserScramCredentialsRequest,
) -> DescribeUserScramCredentialsResponse {
    // Null and an empty list ask for everybody who has credentials.
    let mut asked: Vec<_> =
        request.users.unwrap_or_default().into_iter().map(|user| user.name).collect();
    asked.sort();
    let results = asked.chunk_by(|a, b| a == b).filter_map(|same| {
        let user = same.first()?;
        let (code, message) = if same.len() == 1 {
            (ResponseError::ResourceNotFound, format!("user {user} has no SCRAM credentials"))
        } else {
            (ResponseError::DuplicateResource, format!("user {user} stands in the request twice"))
        };
        let result = response::DescribeUserScramCredentialsResult::default()
            .with_user(user.clone())
            .with_error_code(code.code())
            .with_error_message(Some(message.into()));
        Some(result)
    });
    DescribeUserScramCredentialsResponse::default()
        .with_error_message(None)
        .with_results(results.collect())
}
