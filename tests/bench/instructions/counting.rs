//! Counting: doing an operation so that callgrind can tell it from what is around it, and having it
//! counted.

use std::fs;
use std::hint::black_box;
use std::path::PathBuf;
use std::process::Command;

/// How often an operation is counted. What is not the same each time, as a buffer that grows now
/// and then, is spread over them.
const TIMES: u64 = 10;

/// How often it is done before.
const WARMING: usize = 2;

/// Settings of malloc that keep what is freed at hand, whatever lies beside it: what an allocation
/// costs would hang on where others lie, and thus on the length of a path.
const ALLOCATOR: &str = "glibc.malloc.tcache_count=65535:\
    glibc.malloc.mmap_threshold=1073741824:glibc.malloc.trim_threshold=1073741824";

/// The function below, as callgrind knows it.
const COUNTED: &str = "instructions::counting::counted";

/// Does an operation. Callgrind counts what is done in here and nothing else.
#[inline(never)]
fn counted(operation: &mut dyn FnMut()) -> bool {
    operation();
    // With something left to do after it, the operation is called and not jumped to.
    black_box(true)
}

/// Prepares an operation, does it and checks what came of it, again and again. Only the second of
/// these counts.
pub(crate) fn repeat<I, O>(
    times: usize,
    mut prepare: impl FnMut() -> I,
    mut operate: impl FnMut(I) -> O,
    mut check: impl FnMut(O),
) {
    for time in 0..WARMING + times {
        let mut input = Some(prepare());
        let mut output = None;
        let mut operation = || output = input.take().map(&mut operate);
        if time < WARMING {
            operation();
        } else {
            counted(&mut operation);
        }
        check(output.expect("an operation comes to something"));
    }
}

/// Instructions of one operation of a case.
///
/// A profile of them is left beside this program, for `callgrind_annotate`.
pub(crate) fn count(case: &str) -> u64 {
    let program = std::env::current_exe().unwrap();
    let profile = profile_of(case);
    let mut valgrind = Command::new("valgrind");
    // What the program is called and its environment lie on the stack, and move what comes after.
    valgrind.env_clear().envs(std::env::var_os("PATH").map(|path| ("PATH", path)));
    valgrind
        .env("GLIBC_TUNABLES", ALLOCATOR)
        .current_dir(program.parent().unwrap())
        .args(["--tool=callgrind", "--quiet"])
        .arg(format!("--toggle-collect={COUNTED}"))
        .arg(format!("--callgrind-out-file={}", profile.display()))
        .args(["./instructions", case, &TIMES.to_string()]);
    let ended = valgrind.status().expect("valgrind is installed");
    assert!(ended.success(), "{case}: {ended}");
    let text = fs::read_to_string(profile).unwrap();
    let total = text.lines().find_map(|line| line.strip_prefix("totals: "));
    let total: u64 = total.and_then(|it| it.trim().parse().ok()).expect("callgrind says a total");
    assert!(total > 0, "{case}: callgrind has not found {COUNTED}");
    total / TIMES
}

/// Where the profile of a case is left.
pub(crate) fn profile_of(case: &str) -> PathBuf {
    std::env::current_exe().unwrap().with_file_name(format!("instructions.{case}.callgrind"))
}
