//! A process that is measured, and what the kernel counts of it.

use std::fs;
use std::process::{Child, Command};

/// A process, ended with this value.
pub(crate) struct Process(Child);

impl Process {
    /// Starts what the command says.
    pub(crate) fn start(command: &mut Command) -> std::io::Result<Self> {
        command.spawn().map(Self)
    }

    /// Processor time so far, in seconds.
    pub(crate) fn processor_seconds(&self) -> f64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.0.id())).unwrap();
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
        fields[11..13].iter().map(|it| it.parse::<f64>().unwrap()).sum::<f64>() / 100.0
    }

    /// Resident memory, in MiB.
    pub(crate) fn resident_mib(&self) -> f64 {
        let statm = fs::read_to_string(format!("/proc/{}/statm", self.0.id())).unwrap();
        statm.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() / 256.0
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Gone already is what is wanted.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}
