//! What users hear of locations that can't be used.

use futures::FutureExt;

use super::*;

#[test]
fn what_is_no_location_is_refused_with_a_sentence() {
    let said_of = |url| open_log(url, "odradek").now_or_never().unwrap().unwrap_err();
    let said = |url| said_of(url).to_string();
    assert_eq!(
        said("s3://bucket"),
        "s3://bucket is not a location for their order: use dynamodb://TABLE, file:DIR or memory:"
    );
    assert_eq!(said("memory:x"), "memory:x: memory: takes nothing behind it");
    assert_eq!(said("file:"), "file:: file: needs a folder behind it");
    assert_eq!(
        said("file:dir?sync=no&x=y"),
        "file:dir?sync=no&x=y: there is no option \"sync\"; file: takes none"
    );
    assert!(matches!(said_of("memory:?x"), LocationError::Option { kind: "memory:", .. }));
    assert_eq!(
        open_object_store("dynamodb://table").now_or_never().unwrap().unwrap_err().to_string(),
        "dynamodb://table is not a location for records: use s3://BUCKET, file:DIR or memory:"
    );
}

#[test]
fn a_folder_that_cannot_be_used_is_refused_with_the_reason() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, b"").unwrap();
    for below in [file.clone(), file.join("below/it")] {
        let url = format!("file:{}", below.display());
        let is_a_file = format!("{} is a file, where a folder is needed", file.display());
        let objects = open_object_store(&url).now_or_never().unwrap().unwrap_err().to_string();
        assert!(objects.ends_with(&is_a_file), "{objects}");
        let log = open_log(&url, "odradek").now_or_never().unwrap().unwrap_err().to_string();
        assert!(log.ends_with(&is_a_file), "{log}");
    }
    let url = format!("file:{}", folder.path().display());
    for name in ["", ".", "..", "a/b"] {
        assert!(
            matches!(open_log(&url, name).now_or_never().unwrap(), Err(LocationError::Name(_))),
            "{name:?}"
        );
    }
    let denied = LocationError::Folder {
        folder: folder.path().to_owned(),
        cause: ErrorKind::PermissionDenied.into(),
    };
    assert!(denied.to_string().ends_with("this user has no permission to use it"), "{denied}");
}

#[test]
fn a_log_in_use_or_damaged_is_refused_with_the_reason() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("file:{}", folder.path().display());
    let open = open_log(&url, "odradek").now_or_never().unwrap().unwrap();
    assert!(open.exclusive);
    let other = open_log(&url, "other").now_or_never().unwrap().unwrap();
    let second = open_log(&url, "odradek").now_or_never().unwrap().unwrap_err().to_string();
    assert!(second.ends_with("odradek is in use by another process"), "{second}");
    drop((open, other));
    std::fs::write(folder.path().join("odradek/floor"), b"1").unwrap();
    let damaged = open_log(&url, "odradek").now_or_never().unwrap().unwrap_err().to_string();
    assert!(damaged.contains("odradek/floor is damaged at byte 0"), "{damaged}");
    drop(open_log(&url, "other").now_or_never().unwrap().unwrap());
}

#[test]
fn memory_is_a_location_of_its_own_each_time() {
    assert!(open_log("memory:", "odradek").now_or_never().unwrap().unwrap().exclusive);
    assert!(open_object_store("memory:").now_or_never().unwrap().is_ok());
}
