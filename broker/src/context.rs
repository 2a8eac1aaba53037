//! What every handler may use.

use std::sync::Arc;

use odradek_protocol::id::NodeId;
use odradek_storage::clock::Clock;
use odradek_storage::command::BrokerAddress;
use odradek_storage::engine::Engine;
use odradek_storage::machine::Machine;
use odradek_storage::reader::DiskCache;

use crate::answers::AnswerBudget;
use crate::broker_configs::BrokerConfigs;
use crate::config::Config;
use crate::fetch_session::FetchSessions;
use crate::group::GroupCoordinator;
use crate::handlers::init_producer_id::ProducerIdBlock;
use crate::memory::MemoryBudget;
use crate::metrics::Metrics;
use crate::switch::Switch;
use crate::telemetry::Throttle;
use crate::transactions::TransactionCoordinator;

/// One broker, as its handlers see it.
pub(crate) struct Context {
    /// Machine, writer and reader.
    pub(crate) engine: Engine,
    /// What time it is.
    pub(crate) clock: Arc<dyn Clock>,
    /// How the broker was started.
    pub(crate) config: Config,
    /// Where it is.
    pub(crate) address: BrokerAddress,
    /// Whether it is about to stop, and sends clients to others.
    pub(crate) leaving: Switch,
    /// Bytes that requests in flight may take.
    pub(crate) memory: MemoryBudget,
    /// Bytes that records in answers may take until clients have them.
    pub(crate) answers: AnswerBudget,
    /// Blocks on disk, if they are kept there.
    pub(crate) disk_cache: Option<DiskCache>,
    /// What is counted of clients.
    pub(crate) metrics: Metrics,
    /// For what is said of clients that send nonsense.
    pub(crate) nonsense: Throttle,
    /// The consumer groups it coordinates.
    pub(crate) groups: GroupCoordinator,
    /// What consumers have said that they read.
    pub(crate) fetch_sessions: FetchSessions,
    /// What it does for transactions.
    pub(crate) transactions: TransactionCoordinator,
    /// Producer ids that are this broker's to give out.
    pub(crate) producer_ids: ProducerIdBlock,
}

impl Context {
    /// This broker's replica.
    pub(crate) fn machine(&self) -> &Machine {
        &self.engine.machine
    }

    /// This broker's node id.
    pub(crate) fn node_id(&self) -> NodeId {
        self.machine().node_id()
    }

    /// Whether this broker is about to stop: clients are told to ask another, before they have to
    /// find out.
    pub(crate) fn is_leaving(&self) -> bool {
        self.leaving.is_on()
    }

    /// The broker configs in force, as the state has them now.
    pub(crate) fn broker_configs(&self) -> BrokerConfigs {
        let node = self.node_id();
        self.machine().read(|state| BrokerConfigs::in_force(state.configs(), node))
    }
}
