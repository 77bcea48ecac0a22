//! Which core a process runs on: one for the server, another for all else that is awake during a measurement.

use std::{ffi::OsStr, fs, process::Command};

use rustix::thread::{CpuSet, sched_setaffinity};

/// The two cores, where the kernel lets processes be bound and there are two.
pub struct Cores(Option<(usize, usize)>);

impl Cores {
    /// Looks what this process may use.
    pub fn find() -> Self {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let allowed = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).map(cores);
        let works =
            Command::new("taskset").args(["-c", "0-1023", "true"]).status().is_ok_and(|status| status.success());
        Self(allowed.filter(|_| works).and_then(|cores| match cores[..] {
            [first, .., last] => Some((first, last)),
            _ => None,
        }))
    }

    /// Binds this process, which calls, listens and plays the provider in some chapters, to the core of the load. Threads
    /// that it starts afterwards are bound as well.
    pub fn keep_to_load(&self) {
        if let Some((_, load)) = self.0 {
            let mut set = CpuSet::new();
            set.set(load);
            // Where the kernel does not let it, the figures are less steady, and no less true.
            let _ = sched_setaffinity(None, &set);
        }
    }

    /// A program on the server's core. Tokio then makes one worker thread, because it counts the cores that it may use.
    pub fn server(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = bound(self.0.map(|(server, _)| server), program.as_ref());
        if self.0.is_none() {
            command.env("TOKIO_WORKER_THREADS", "1");
        }
        command
    }

    /// A program on the other core.
    pub fn load(&self, program: impl AsRef<OsStr>) -> Command {
        bound(self.0.map(|(_, load)| load), program.as_ref())
    }

    /// In words, for the report.
    pub fn describe(&self) -> String {
        match self.0 {
            Some((server, load)) => format!("server on core {server}, load and everything else on core {load}"),
            None => "processes could not be bound to cores; servers have one worker thread".to_owned(),
        }
    }
}

fn bound(core: Option<usize>, program: &OsStr) -> Command {
    let Some(core) = core else { return Command::new(program) };
    let mut command = Command::new("taskset");
    command.args(["-c", &core.to_string()]).arg(program);
    command
}

/// Reads a list such as `0-3,8` (proc(5)).
fn cores(list: &str) -> Vec<usize> {
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some(first.trim().parse::<usize>().ok()?..=last.trim().parse::<usize>().ok()?)
    };
    list.split(',').filter_map(range).flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::cores;

    #[test]
    fn lists_of_cores_are_read() {
        for (list, expected) in
            [("\t0-1", vec![0, 1]), ("0,2-4,9", vec![0, 2, 3, 4, 9]), ("5", vec![5]), ("", vec![]), ("none", vec![])]
        {
            assert_eq!(cores(list), expected, "{list}");
        }
    }
}
