//! Where, when and with what something was measured.

use std::process::Command;

/// One line; `built` says how what was measured was built, `before` how busy the machine was then.
pub(crate) fn machine(built: &str, before: &str) -> String {
    let said = |program: &str, arguments: &[&str]| {
        let output = Command::new(program).args(arguments).output().unwrap();
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    format!(
        "{}, {} cores, {}, {}, odradek {} ({built}), load {before} before and {} \
         after",
        said("date", &["-u", "+%Y-%m-%d"]),
        said("nproc", &[]),
        said("uname", &["-sr"]),
        said("rustc", &["--version"]),
        env!("CARGO_PKG_VERSION"),
        load(),
    )
}

/// How busy the machine is.
pub(crate) fn load() -> String {
    let load = std::fs::read_to_string("/proc/loadavg").unwrap();
    load.split_whitespace().next().unwrap().to_owned()
}
