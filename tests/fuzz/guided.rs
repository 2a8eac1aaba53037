//! The targets for libFuzzer: `FUZZ_TARGET` names one, whose seeds are written to `FUZZ_SEEDS`.

#![no_main]

mod targets;

use std::sync::OnceLock;
use std::{env, fs};

use targets::{TARGETS, Target};

static TARGET: OnceLock<&Target> = OnceLock::new();

fn choose() {
    if env::args().any(|argument| argument == "--list") {
        TARGETS.iter().for_each(|target| println!("{}", target.name));
        std::process::exit(0);
    }
    let name = env::var("FUZZ_TARGET").expect("FUZZ_TARGET names a target");
    let target = TARGETS.iter().find(|target| target.name == name).expect("there is such a target");
    if let Ok(folder) = env::var("FUZZ_SEEDS") {
        for (at, seed) in (target.seeds)().iter().enumerate() {
            fs::write(format!("{folder}/seed-{at:03}"), seed).unwrap();
        }
    }
    TARGET.set(target).ok().expect("chosen once");
}

libfuzzer_sys::fuzz_target!(
    init: choose(),
    |data: &[u8]| (TARGET.get().expect("init comes first").run)(data)
);
