//! A small Kafka client on raw frames, which can also say what no client says.

use std::net::SocketAddr;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::fetch_response::PartitionData;
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::list_offsets_response::ListOffsetsPartitionResponse;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::produce_response::PartitionProduceResponse;
use kafka_protocol::messages::{
    ApiKey, BrokerId, CreateTopicsRequest, FetchRequest, ListOffsetsRequest, ProduceRequest,
    RequestHeader, ResponseHeader, TopicName,
};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, Request};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::batches::{BatchSpec, ReadRecord, read_records};

/// One connection.
#[derive(Debug)]
pub struct Client {
    stream: TcpStream,
    correlation_id: i32,
}

/// A topic's name as the messages have it.
pub fn topic(name: &str) -> TopicName {
    TopicName(name.to_owned().into())
}

impl Client {
    /// Connects to a broker.
    pub async fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream, correlation_id: 0 }
    }

    /// Sends bytes as they are.
    pub async fn send_raw(&mut self, bytes: &[u8]) {
        // The broker may have closed already, which the next read tells.
        drop(self.stream.write_all(bytes).await);
    }

    /// Ends the sending side.
    pub async fn finish_sending(&mut self) {
        drop(self.stream.shutdown().await);
    }

    /// Waits until the broker closes the connection; what it still sent.
    pub async fn read_to_end(&mut self) -> Bytes {
        let mut rest = Vec::new();
        drop(self.stream.read_to_end(&mut rest).await);
        rest.into()
    }

    /// Sends a request and does not wait; its correlation id.
    pub async fn send<R: Request>(&mut self, version: i16, request: &R) -> i32 {
        self.correlation_id += 1;
        let frame = frame::<R>(version, self.correlation_id, request);
        self.send_raw(&frame).await;
        self.correlation_id
    }

    /// The next frame; `None` if the connection was closed.
    pub async fn next_frame(&mut self) -> Option<Bytes> {
        let length = usize::try_from(self.stream.read_i32().await.ok()?).unwrap();
        let mut frame = vec![0; length];
        self.stream.read_exact(&mut frame).await.ok()?;
        Some(frame.into())
    }

    /// The next response, which must be the one to `correlation_id`, whole and without bytes left.
    pub async fn receive<R: Request>(&mut self, version: i16, correlation_id: i32) -> R::Response {
        let frame = self.next_frame().await.expect("an answer");
        response::<R>(version, correlation_id, frame)
    }

    /// Sends a request and waits for its response.
    pub async fn call<R: Request>(&mut self, version: i16, request: &R) -> R::Response {
        let id = self.send(version, request).await;
        self.receive::<R>(version, id).await
    }

    /// Creates a topic.
    pub async fn create_topic(&mut self, name: &str, partitions: i32) {
        self.create_topic_with(name, partitions, &[]).await;
    }

    /// Creates a topic with configs.
    pub async fn create_topic_with(
        &mut self,
        name: &str,
        partitions: i32,
        configs: &[(&str, &str)],
    ) {
        let config = |(name, value): &(&str, &str)| {
            CreatableTopicConfig::default()
                .with_name((*name).to_owned().into())
                .with_value(Some((*value).to_owned().into()))
        };
        let new = CreatableTopic::default()
            .with_name(topic(name))
            .with_num_partitions(partitions)
            .with_replication_factor(1)
            .with_configs(configs.iter().map(config).collect());
        let request = CreateTopicsRequest::default().with_topics(vec![new]).with_timeout_ms(10_000);
        let response = self.call(7, &request).await;
        assert_eq!(response.topics[0].error_code, 0, "{response:?}");
    }

    /// Produces these bytes to one partition and returns the answer for it.
    pub async fn produce_raw(
        &mut self,
        name: &str,
        partition: i32,
        records: Bytes,
    ) -> PartitionProduceResponse {
        let request = produce_request(name, partition, -1, records);
        let mut response = self.call(9, &request).await;
        response.responses.remove(0).partition_responses.remove(0)
    }

    /// Produces a batch and returns its base offset.
    pub async fn produce(&mut self, name: &str, partition: i32, batch: &BatchSpec) -> i64 {
        let answer = self.produce_raw(name, partition, batch.encode()).await;
        assert_eq!(answer.error_code, 0, "{answer:?}");
        answer.base_offset
    }

    /// Fetches from one partition and returns the answer for it.
    pub async fn fetch(&mut self, name: &str, partition: i32, offset: i64) -> PartitionData {
        let request = fetch_request(name, partition, offset);
        let mut response = self.call(11, &request).await;
        assert_eq!(response.error_code, 0, "{response:?}");
        response.responses.remove(0).partitions.remove(0)
    }

    /// Every record of a partition, from `offset` on.
    pub async fn read_all(&mut self, name: &str, partition: i32, offset: i64) -> Vec<ReadRecord> {
        let mut read: Vec<ReadRecord> = Vec::new();
        loop {
            let next = read.last().map_or(offset, |record| record.offset + 1);
            let data = self.fetch(name, partition, next).await;
            assert_eq!(data.error_code, 0, "{data:?}");
            if next >= data.high_watermark {
                return read;
            }
            let records = read_records(data.records.unwrap());
            read.extend(records.into_iter().filter(|record| record.offset >= next));
        }
    }

    /// What ListOffsets says of one partition.
    pub async fn list_offset(
        &mut self,
        version: i16,
        name: &str,
        partition: i32,
        timestamp: i64,
    ) -> ListOffsetsPartitionResponse {
        let asked = ListOffsetsPartition::default()
            .with_partition_index(partition)
            .with_timestamp(timestamp);
        let asked = ListOffsetsTopic::default().with_name(topic(name)).with_partitions(vec![asked]);
        let request =
            ListOffsetsRequest::default().with_replica_id(BrokerId(-1)).with_topics(vec![asked]);
        let mut response = self.call(version, &request).await;
        response.topics.remove(0).partitions.remove(0)
    }
}

/// A Produce request for one partition.
pub fn produce_request(name: &str, partition: i32, acks: i16, records: Bytes) -> ProduceRequest {
    let data = PartitionProduceData::default().with_index(partition).with_records(Some(records));
    let data = TopicProduceData::default().with_name(topic(name)).with_partition_data(vec![data]);
    ProduceRequest::default().with_acks(acks).with_timeout_ms(30_000).with_topic_data(vec![data])
}

/// A Fetch request for one partition, which does not wait.
pub fn fetch_request(name: &str, partition: i32, offset: i64) -> FetchRequest {
    let asked = FetchPartition::default()
        .with_partition(partition)
        .with_fetch_offset(offset)
        .with_partition_max_bytes(1 << 20);
    let asked = FetchTopic::default().with_topic(topic(name)).with_partitions(vec![asked]);
    FetchRequest::default()
        .with_replica_id(BrokerId(-1))
        .with_max_wait_ms(0)
        .with_min_bytes(0)
        .with_max_bytes(50 << 20)
        .with_session_epoch(-1)
        .with_topics(vec![asked])
}

/// What a frame says, which must be the response to `correlation_id`, whole and without bytes left.
pub fn response<R: Request>(version: i16, correlation_id: i32, mut frame: Bytes) -> R::Response {
    let header_version = R::Response::header_version(version);
    let header = ResponseHeader::decode(&mut frame, header_version).unwrap();
    assert_eq!(header.correlation_id, correlation_id);
    let response = R::Response::decode(&mut frame, version).unwrap();
    assert_eq!(frame.remaining(), 0, "bytes behind the response");
    response
}

/// The frame of a request.
pub fn frame<R: Request>(version: i16, correlation_id: i32, request: &R) -> Bytes {
    let header = RequestHeader::default()
        .with_request_api_key(R::KEY)
        .with_request_api_version(version)
        .with_correlation_id(correlation_id)
        .with_client_id(Some("test".into()));
    let mut frame = BytesMut::new();
    frame.put_i32(0);
    header.encode(&mut frame, R::header_version(version)).unwrap();
    request.encode(&mut frame, version).unwrap();
    let length = i32::try_from(frame.len() - 4).unwrap();
    frame[..4].copy_from_slice(&length.to_be_bytes());
    frame.freeze()
}

/// A frame whose header is good and whose body is anything.
pub fn frame_of(api: ApiKey, version: i16, body: &[u8]) -> Bytes {
    let header = RequestHeader::default()
        .with_request_api_key(odradek_protocol::api::number(api))
        .with_request_api_version(version)
        .with_correlation_id(77)
        .with_client_id(Some("test".into()));
    let mut frame = BytesMut::new();
    frame.put_i32(0);
    header.encode(&mut frame, api.request_header_version(version)).unwrap();
    frame.put_slice(body);
    let length = i32::try_from(frame.len() - 4).unwrap();
    frame[..4].copy_from_slice(&length.to_be_bytes());
    frame.freeze()
}
