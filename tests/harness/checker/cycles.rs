//! Cycles of operations that must have come before each other: R12 and R13.

use std::collections::{BTreeMap, VecDeque};

use petgraph::Direction;
use petgraph::algo::kosaraju_scc;
use petgraph::graph::{DiGraph, NodeIndex};

use super::findings::Findings;
use super::index::Index;
use super::rule::Rule;
use crate::history::{Isolation, Kind, Stage};

/// Why one comes before another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Why {
    /// The other read what it wrote.
    Read,
    /// The other wrote the next value of a key.
    Write,
    /// It was over before the other began.
    Time,
}

/// Operations, then moments: the end of each operation that ended well.
type Graph = DiGraph<Option<usize>, Why>;

/// R12: what reads only what is committed reads from transactions that came before it, so reads and
/// time make no cycle. R13: with the order of writes they may, as Kafka's transactions are not
/// isolated from each other.
pub(super) fn check(index: &Index, findings: &mut Findings) {
    let mut graph = Graph::new();
    for op in 0..index.ops.len() {
        graph.add_node(Some(op));
    }
    let reads = add_reads(index, &mut graph);
    let mut writes = graph.clone();
    add_time(index, &mut graph);
    findings.judge(Rule::R12, reads);
    report(index, findings, Rule::R12, &graph);
    drop(graph);
    let ordered = add_writes(index, &mut writes);
    findings.judge(Rule::R13, ordered);
    report(index, findings, Rule::R13, &writes);
}

/// Whether what it did, if anything, counts.
fn counts(index: &Index, op: usize) -> bool {
    index.ops[op].outcome != Stage::Fail
}

fn add_reads(index: &Index, graph: &mut Graph) -> usize {
    let mut edges = 0;
    for (at, op) in index.ops.iter().enumerate() {
        // What is not committed is shown at once: two may well see each other.
        if op.isolation != Isolation::ReadCommitted || !counts(index, at) {
            continue;
        }
        let mut writers: Vec<usize> = Vec::new();
        let values = op.reads.iter().filter_map(|read| read.value);
        writers.extend(values.map(|value| index.values[value].op));
        writers.sort_unstable();
        writers.dedup();
        for writer in writers.into_iter().filter(|it| *it != at && counts(index, *it)) {
            graph.add_edge(NodeIndex::new(writer), NodeIndex::new(at), Why::Read);
            edges += 1;
        }
    }
    edges
}

/// An operation comes before all that began after its end. Through one node for each end, which
/// come after each other, this takes two edges for each operation instead of one for each pair.
fn add_time(index: &Index, graph: &mut Graph) {
    let is_value = |kind| matches!(kind, Kind::Send | Kind::Poll | Kind::Txn);
    let mut ends: Vec<(u64, usize)> = Vec::new();
    for (at, op) in index.ok().filter(|(_, op)| is_value(op.event.f)) {
        ends.extend(op.ended.map(|ended| (ended, at)));
    }
    ends.sort_unstable();
    let mut moments = Vec::with_capacity(ends.len());
    for &(_, op) in &ends {
        let moment = graph.add_node(None);
        if let Some(&last) = moments.last() {
            graph.add_edge(last, moment, Why::Time);
        }
        graph.add_edge(NodeIndex::new(op), moment, Why::Time);
        moments.push(moment);
    }
    for (at, op) in index.ops.iter().enumerate().filter(|(_, op)| is_value(op.event.f)) {
        let before = ends.partition_point(|(ended, _)| *ended < op.began);
        if let Some(last) = before.checked_sub(1).filter(|_| counts(index, at)) {
            graph.add_edge(moments[last], NodeIndex::new(at), Why::Time);
        }
    }
}

fn add_writes(index: &Index, graph: &mut Graph) -> usize {
    let mut edges = 0;
    for values in &index.required {
        for pair in values.windows(2) {
            let writer = |at: usize| index.values[pair[at].1].op;
            let (first, second) = (writer(0), writer(1));
            if first != second {
                graph.add_edge(NodeIndex::new(first), NodeIndex::new(second), Why::Write);
                edges += 1;
            }
        }
    }
    edges
}

fn report(index: &Index, findings: &mut Findings, rule: Rule, graph: &Graph) {
    for component in kosaraju_scc(graph).into_iter().filter(|nodes| nodes.len() > 1) {
        let cycle = shortest(graph, &component);
        let ops: Vec<usize> = cycle.iter().filter_map(|(node, _)| graph[*node]).collect();
        findings.blame(rule, index, &ops, || {
            let mut text = String::from("each before the next");
            for (node, why) in &cycle {
                if let Some(op) = graph[*node] {
                    let op = &index.ops[op];
                    let (process, number) = (op.event.process, op.event.op.unwrap_or_default());
                    text += &format!(", {process}.{number} ({why:?})");
                }
            }
            text
        });
    }
}

/// A shortest cycle through the first operation of a component: its nodes, each with why it comes
/// before the next.
fn shortest(graph: &Graph, component: &[NodeIndex]) -> Vec<(NodeIndex, Why)> {
    let inside: BTreeMap<NodeIndex, ()> = component.iter().map(|node| (*node, ())).collect();
    let start = component.iter().copied().find(|node| graph[*node].is_some());
    let start = start.expect("moments alone make no cycle");
    // Backwards from the start, so that each node knows the way on.
    let mut next: BTreeMap<NodeIndex, (NodeIndex, Why)> = BTreeMap::new();
    let mut queue = VecDeque::from([start]);
    while let Some(node) = queue.pop_front() {
        let mut edges = graph.neighbors_directed(node, Direction::Incoming).detach();
        while let Some((edge, before)) = edges.next(graph) {
            if inside.contains_key(&before) && !next.contains_key(&before) {
                next.insert(before, (node, graph[edge]));
                if before == start {
                    queue.clear();
                    break;
                }
                queue.push_back(before);
            }
        }
    }
    let mut cycle = Vec::new();
    let mut node = start;
    loop {
        let (after, why) = next[&node];
        cycle.push((node, why));
        node = after;
        if node == start {
            return cycle;
        }
    }
}
