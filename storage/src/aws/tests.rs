//! What failures of the services come to.

use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::error::{ErrorMetadata, SdkError};
use aws_sdk_s3::operation::put_object::PutObjectError;
use aws_sdk_s3::primitives::SdkBody;

use super::*;

fn failure(status: u16, code: &str) -> Failure {
    let metadata = ErrorMetadata::builder().code(code).message("said").build();
    let response = HttpResponse::new(status.try_into().unwrap(), SdkBody::empty());
    let error = SdkError::service_error(PutObjectError::generic(metadata), response);
    Failure::of(&error)
}

#[test]
fn only_what_certainly_did_nothing_is_determinate() {
    let throttled = [(503, "SlowDown"), (400, "ThrottlingException"), (429, "Other")];
    let throttled = throttled.into_iter().chain([
        (400, "ProvisionedThroughputExceededException"),
        (409, "ConditionalRequestConflict"),
    ]);
    for (status, code) in throttled {
        assert!(matches!(failure(status, code), Failure::Throttled(_)), "{status} {code}");
    }
    for (status, code) in [(500, "InternalError"), (503, "ServiceUnavailable"), (502, "")] {
        let unknown = failure(status, code);
        assert!(matches!(unknown, Failure::Unknown(_)), "{status} {code}");
        assert!(matches!(PortError::from(unknown), PortError::Indeterminate(_)));
    }
    assert!(matches!(failure(400, "RequestTimeout"), Failure::Unknown(_)));
    for code in ["AccessDenied", "NoSuchBucket", "ValidationException"] {
        let refused = failure(400, code);
        assert!(matches!(&refused, Failure::Refused { code: found, .. } if found == code));
        assert!(matches!(PortError::from(refused), PortError::Determinate(_)));
    }
}

#[test]
fn an_answer_that_did_not_come_is_unknown() {
    let error: SdkError<PutObjectError, HttpResponse> = SdkError::timeout_error("slow");
    assert!(matches!(Failure::of(&error), Failure::Unknown(_)));
    let error: SdkError<PutObjectError, HttpResponse> = SdkError::construction_failure("bad");
    assert!(matches!(Failure::of(&error), Failure::Refused { .. }), "it was never sent");
    let none = CredentialsError::not_loaded("nothing");
    let error: SdkError<PutObjectError, HttpResponse> = SdkError::construction_failure(none);
    let Failure::Refused { code, .. } = Failure::of(&error) else { panic!("{error:?}") };
    assert!(advice(&code).unwrap().contains("no AWS credentials"));
}
