//! What every handler may use.

use std::sync::Arc;

use odradek_protocol::id::NodeId;
use odradek_storage::clock::Clock;
use odradek_storage::engine::Engine;
use odradek_storage::machine::Machine;

use crate::broker_configs::BrokerConfigs;
use crate::config::Config;
use crate::handlers::init_producer_id::ProducerIdBlock;
use crate::telemetry::Throttle;

/// One broker, as its handlers see it.
pub(crate) struct Context {
    /// Machine, writer and reader.
    pub(crate) engine: Engine,
    /// What time it is.
    pub(crate) clock: Arc<dyn Clock>,
    /// How the broker was started.
    pub(crate) config: Config,
    /// Where clients reach it.
    pub(crate) host: String,
    /// The port there.
    pub(crate) port: u16,
    /// For what is said of clients that send nonsense.
    pub(crate) nonsense: Throttle,
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

    /// The broker configs in force, as the state has them now.
    pub(crate) fn broker_configs(&self) -> BrokerConfigs {
        let node = self.node_id();
        self.machine().read(|state| BrokerConfigs::in_force(state.configs(), node))
    }
}
