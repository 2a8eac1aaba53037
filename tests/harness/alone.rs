//! Engines that a simulation sets up one by one, each with the settings that are the default.

use odradek_storage::command::BrokerAddress;
use odradek_storage::engine::EngineConfig;
use odradek_storage::life::LifeConfig;
use odradek_storage::machine::MachineConfig;
use odradek_storage::reader::ReaderConfig;
use odradek_storage::writer::WriterConfig;

/// The settings of broker number `number`, whose random numbers come from that as well.
pub fn config(number: u64) -> EngineConfig {
    EngineConfig {
        address: BrokerAddress { host: host(number), port: 1, ..BrokerAddress::default() },
        seed: number,
        machine: MachineConfig::default(),
        writer: WriterConfig::default(),
        reader: ReaderConfig::default(),
        life: LifeConfig::default(),
    }
}

/// The host of broker number `number`; its port is 1.
pub fn host(number: u64) -> String {
    format!("broker-{number}")
}
