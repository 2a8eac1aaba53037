//! What members of groups asked, and what they were told.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use tokio::time::Instant;

/// One call of a member that had to do with its generation or its positions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// The group.
    pub group: String,
    /// The member's id.
    pub member: String,
    /// Its instance id, if it is a static member.
    pub instance: Option<String>,
    /// When it began. Moments are counted: no two are the same.
    pub began: u64,
    /// When its answer came, or was given up.
    pub ended: u64,
    /// Whether it was answered that it was done.
    pub is_done: bool,
    /// What was asked, and told if it was done.
    pub what: What,
}

/// What a call was about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// A generation was joined.
    Join {
        /// Which.
        generation: i32,
    },
    /// An assignment was fetched.
    Sync {
        /// The generation.
        generation: i32,
        /// The partitions.
        partitions: Vec<i32>,
    },
    /// The member said that it lives.
    Heartbeat {
        /// In which generation.
        generation: i32,
    },
    /// A member of the consumer protocol spoke, and was told where it stands.
    Turn {
        /// The epoch it spoke with.
        said: i32,
        /// Its epoch afterwards.
        epoch: i32,
        /// What it said it has.
        owned: Vec<i32>,
        /// What it may have afterwards.
        partitions: Vec<i32>,
    },
    /// A position was committed.
    Commit {
        /// In which generation, or with which member epoch.
        generation: i32,
        /// Of which partition.
        partition: i32,
        /// The position.
        offset: i64,
        /// What was to be kept with it.
        metadata: String,
    },
    /// A position was read.
    Read {
        /// Of which partition.
        partition: i32,
        /// The position, and what was kept with it, if there was one.
        position: Option<(i64, String)>,
    },
}

/// All calls of a world, and the story of it. Clones are the same.
#[derive(Clone, Debug)]
pub struct History {
    shared: Arc<Mutex<Shared>>,
}

#[derive(Debug)]
struct Shared {
    began: Instant,
    moment: u64,
    calls: Vec<Call>,
    trace: Vec<String>,
    views: BTreeMap<(String, usize), View>,
}

/// Where a member believes to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View {
    /// Its id.
    pub member: String,
    /// Its generation, or its epoch.
    pub generation: i32,
    /// Its partitions.
    pub partitions: Vec<i32>,
}

impl Default for History {
    fn default() -> Self {
        let shared = Shared {
            began: Instant::now(),
            moment: 0,
            calls: Vec::new(),
            trace: Vec::new(),
            views: BTreeMap::new(),
        };
        Self { shared: Arc::new(Mutex::new(shared)) }
    }
}

impl History {
    /// A moment that is later than all before.
    pub fn moment(&self) -> u64 {
        let mut shared = self.shared.lock().unwrap();
        shared.moment += 1;
        shared.moment
    }

    /// Adds a call that ends now.
    pub fn add(&self, call: Call) {
        let ended = self.moment();
        let Call { group, member, is_done, .. } = &call;
        let said = if *is_done { "done" } else { "not done" };
        self.say(format!("{group} {member}: {:?} {said}", call.what));
        self.shared.lock().unwrap().calls.push(Call { ended, ..call });
    }

    /// Adds a line to the story.
    pub fn say(&self, what: String) {
        let mut shared = self.shared.lock().unwrap();
        let at = shared.began.elapsed().as_millis();
        shared.trace.push(format!("{at:>8} {what}"));
    }

    /// Says where a member of a group stands: the one in this place of its group.
    pub fn set_view(&self, group: &str, place: usize, view: Option<View>) {
        let mut shared = self.shared.lock().unwrap();
        let key = (group.to_owned(), place);
        match view {
            Some(view) => shared.views.insert(key, view),
            None => shared.views.remove(&key),
        };
    }

    /// Where the members of a group stand that stand anywhere.
    pub fn views(&self, group: &str) -> Vec<View> {
        let shared = self.shared.lock().unwrap();
        let views = shared.views.iter().filter(|((name, _), _)| name == group);
        views.map(|(_, view)| view.clone()).collect()
    }

    /// Where the member in this place of its group stands, if anywhere.
    pub fn view(&self, group: &str, place: usize) -> Option<View> {
        self.shared.lock().unwrap().views.get(&(group.to_owned(), place)).cloned()
    }

    /// All calls so far, in the order in which they ended.
    pub fn calls(&self) -> Vec<Call> {
        self.shared.lock().unwrap().calls.clone()
    }

    /// The story so far.
    pub fn trace(&self) -> Vec<String> {
        self.shared.lock().unwrap().trace.clone()
    }
}
