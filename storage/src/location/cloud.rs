//! Locations at a cloud provider, or at a server of one's own that speaks its protocol.

use super::LocationError;
use crate::aws::Access;
use crate::log::dynamodb::DynamoDbLocation;
use crate::object::s3::S3Location;

const OPTIONS: &str = "region=NAME, endpoint=URL and create=true|false";

#[derive(Default)]
struct Options {
    access: Access,
    create: bool,
}

/// The bucket that `s3://BUCKET/PREFIX?OPTIONS` names; `None` if it is another kind of location.
pub(super) fn s3(url: &str) -> Result<Option<S3Location>, LocationError> {
    let Some(rest) = url.strip_prefix("s3://") else { return Ok(None) };
    let malformed = |what| LocationError::Malformed { url: url.to_owned(), what };
    let (place, Options { access, create }) = options(url, "s3:", rest)?;
    let (bucket, prefix) = place.split_once('/').unwrap_or((place, ""));
    let is_bucket = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let legal = bucket.bytes().all(|byte| is_bucket(byte) || b".-".contains(&byte));
    if !legal || !(3..=63).contains(&bucket.len()) {
        return Err(malformed("a bucket's name has 3 to 63 of a-z, 0-9, . and -"));
    }
    let prefix = prefix.trim_end_matches('/');
    let is_prefix = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./".contains(&byte);
    if !prefix.bytes().all(is_prefix) || prefix.split('/').any(str::is_empty) && !prefix.is_empty()
    {
        return Err(malformed("a prefix is made of a-z, A-Z, 0-9, ., - and _, joined by /"));
    }
    let prefix = if prefix.is_empty() { String::new() } else { format!("{prefix}/") };
    Ok(Some(S3Location { bucket: bucket.to_owned(), prefix, access, create }))
}

/// The table that `dynamodb://TABLE?OPTIONS` names; `None` if it is another kind of location.
pub(super) fn dynamodb(url: &str, name: &str) -> Result<Option<DynamoDbLocation>, LocationError> {
    let Some(rest) = url.strip_prefix("dynamodb://") else { return Ok(None) };
    let malformed = |what| LocationError::Malformed { url: url.to_owned(), what };
    let (table, Options { access, create }) = options(url, "dynamodb:", rest)?;
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    if !table.bytes().all(is_name) || !(3..=255).contains(&table.len()) {
        return Err(malformed("a table's name has 3 to 255 of a-z, A-Z, 0-9, ., - and _"));
    }
    Ok(Some(DynamoDbLocation { table: table.to_owned(), name: name.to_owned(), access, create }))
}

fn options<'a>(
    url: &str,
    kind: &'static str,
    rest: &'a str,
) -> Result<(&'a str, Options), LocationError> {
    let Some((place, given)) = rest.split_once('?') else { return Ok((rest, Options::default())) };
    let mut options = Options::default();
    for option in given.split('&') {
        match option.split_once('=') {
            Some(("region", region)) if !region.is_empty() => {
                options.access.region = Some(region.to_owned());
            }
            Some(("endpoint", url))
                if url.starts_with("http://") || url.starts_with("https://") =>
            {
                options.access.endpoint = Some(url.to_owned());
            }
            Some(("create", "true")) => options.create = true,
            Some(("create", "false")) => options.create = false,
            _ => {
                let (url, option) = (url.to_owned(), option.to_owned());
                return Err(LocationError::Option { url, kind, option, takes: OPTIONS });
            }
        }
    }
    Ok((place, options))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_is_told_from_its_prefix_and_options() {
        let plain = s3("s3://records").unwrap().unwrap();
        assert_eq!((plain.bucket.as_str(), plain.prefix.as_str()), ("records", ""));
        assert!(!plain.create && plain.access == Access::default());
        let full = s3("s3://records/a/b/?region=eu-central-1&endpoint=http://h:1&create=true");
        let full = full.unwrap().unwrap();
        assert_eq!((full.bucket.as_str(), full.prefix.as_str()), ("records", "a/b/"));
        let Access { region, endpoint } = full.access;
        assert_eq!(
            (region.as_deref(), endpoint.as_deref()),
            (Some("eu-central-1"), Some("http://h:1"))
        );
        assert!(full.create);
        assert_eq!(s3("file:x").unwrap(), None);
    }

    #[test]
    fn what_no_service_would_take_is_refused() {
        for url in
            ["s3://", "s3://ab", "s3://Records", "s3://a_b", "s3://records//x", "s3://records/a b"]
        {
            assert!(matches!(s3(url), Err(LocationError::Malformed { .. })), "{url}");
        }
        for url in ["dynamodb://", "dynamodb://ab", "dynamodb://a/b/c"] {
            assert!(matches!(dynamodb(url, "x"), Err(LocationError::Malformed { .. })), "{url}");
        }
        for options in ["zone=a", "region=", "endpoint=h:1", "create=yes", "create", ""] {
            let url = format!("dynamodb://table?{options}");
            let error = dynamodb(&url, "x").unwrap_err();
            assert!(matches!(error, LocationError::Option { .. }), "{url}");
            assert!(error.to_string().contains("dynamodb: takes region="), "{error}");
        }
    }
}
