// A member of a consumer group with kafkajs; see python_member.py, whose like it is.
//
//     node kafkajs_member.js BOOTSTRAP GROUP TOPIC [SETTINGS]
//
// kafkajs has one strategy of its own, under a name that no other client knows, so here is "range".

const { AssignerProtocol, Kafka, logLevel } = require('kafkajs')

const [bootstrap, groupId, topic, settings = '{}'] = process.argv.slice(2)
const tell = (event, about = {}) => process.stdout.write(JSON.stringify({ event, ...about }) + '\n')

const range = ({ cluster }) => ({
  name: 'range',
  version: 0,

  async assign({ members }) {
    const shares = new Map(members.map(({ memberId }) => [memberId, {}]))
    const readers = new Map()
    for (const { memberId, memberMetadata } of members) {
      for (const name of AssignerProtocol.MemberMetadata.decode(memberMetadata).topics) {
        readers.set(name, [...(readers.get(name) || []), memberId])
      }
    }
    for (const [name, ids] of readers) {
      const partitions = cluster.findTopicPartitionMetadata(name).map(it => it.partitionId).sort((a, b) => a - b)
      ids.sort().forEach((id, n) => {
        const [from, to] = [n, n + 1].map(k => bound(partitions.length, ids.length, k))
        shares.get(id)[name] = partitions.slice(from, to)
      })
    }
    return [...shares].map(([memberId, assignment]) => ({
      memberId,
      memberAssignment: AssignerProtocol.MemberAssignment.encode({ version: 0, assignment, userData: Buffer.alloc(0) })
    }))
  },

  protocol: ({ topics }) => ({
    name: 'range',
    metadata: AssignerProtocol.MemberMetadata.encode({ version: 0, topics, userData: Buffer.alloc(0) })
  })
})

// Where the share of member `k` of `members` begins: the first ones have one more.
const bound = (partitions, members, k) =>
  k * Math.floor(partitions / members) + Math.min(k, partitions % members)

const main = async () => {
  const kafka = new Kafka({
    brokers: bootstrap.split(','),
    logLevel: logLevel.ERROR,
    logCreator: () => ({ log }) => process.stderr.write(JSON.stringify(log) + '\n')
  })
  const consumer = kafka.consumer({
    groupId,
    partitionAssigners: [range],
    heartbeatInterval: 500,
    retry: { retries: 50, maxRetryTime: 1000 },
    ...JSON.parse(settings)
  })

  // It tells its assignment when it joins, and its generation with the first heartbeat or commit thereafter.
  let joined = null
  let generation = -1
  const hear = ({ payload }) => {
    generation = payload.groupGenerationId
    if (joined && joined.member === payload.memberId) {
      tell('owns', { generation, ...joined })
      joined = null
    }
  }
  consumer.on(consumer.events.GROUP_JOIN, ({ payload }) => {
    const partitions = [...(payload.memberAssignment[topic] || [])].sort((a, b) => a - b)
    joined = { member: payload.memberId, partitions }
  })
  consumer.on(consumer.events.REBALANCING, ({ payload }) => {
    joined = null
    tell('owns', { generation, member: payload.memberId, partitions: [] })
  })
  consumer.on(consumer.events.HEARTBEAT, hear)
  consumer.on(consumer.events.COMMIT_OFFSETS, hear)
  consumer.on(consumer.events.CRASH, ({ payload }) => tell('crash', { error: String(payload.error) }))

  await consumer.connect()
  await consumer.subscribe({ topic, fromBeginning: true })
  await consumer.run({
    autoCommit: false,
    eachBatch: async ({ batch, heartbeat }) => {
      const { partition, messages } = batch
      if (!messages.length) return
      tell('read', { records: messages.map(it => [partition, Number(it.offset), it.value.toString()]) })
      const end = Number(messages[messages.length - 1].offset) + 1
      try {
        await consumer.commitOffsets([{ topic, partition, offset: String(end) }])
      } catch (error) {
        // It would end the consumer if it were thrown on; the next heartbeat hears the same and rejoins.
        tell('refused', { generation, error: String(error) })
        return
      }
      tell('committed', { generation, offsets: { [partition]: end } })
      await heartbeat()
    }
  })
  process.on('SIGTERM', async () => {
    await consumer.disconnect()
    tell('closed')
    process.exit(0)
  })
}

main().catch(error => {
  tell('crash', { error: String(error) })
  process.exit(1)
})
