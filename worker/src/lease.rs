//! How long this worker may believe that it still has its attempts.
//!
//! Owns: heartbeat numbers and the end of the lease. Reads no clock. Invariant: the lease counts
//! from when an acknowledged heartbeat was *sent*, so that it ends here before it ends at the
//! master, whose count starts later.

use std::collections::VecDeque;

use agentflow_core::limits;
use agentflow_core::time::Mono;

/// Heartbeats that may be on their way; with more the link is dead anyway.
const IN_FLIGHT: usize = 64;

#[derive(Debug)]
pub(crate) struct Lease {
    heartbeat_ms: u64,
    lease_ms: u64,
    next: u64,
    sent: VecDeque<(u64, Mono)>,
    until: Option<Mono>,
    heard: Mono,
    beaten: Mono,
}

impl Lease {
    pub(crate) fn new() -> Self {
        Self {
            heartbeat_ms: limits::HEARTBEAT_MS,
            lease_ms: limits::LEASE_MS,
            next: 1,
            sent: VecDeque::new(),
            until: None,
            heard: Mono(0),
            beaten: Mono(0),
        }
    }

    /// A session begins: its hello was sent then, and is answered now.
    pub(crate) fn begin(&mut self, hello_sent: Mono, heartbeat_ms: u64, lease_ms: u64) {
        self.heartbeat_ms = heartbeat_ms.max(10);
        self.lease_ms = lease_ms.max(self.heartbeat_ms);
        self.next = 1;
        self.sent.clear();
        self.beaten = hello_sent;
        self.until = Some(hello_sent.plus_ms(self.lease_ms));
    }

    /// The number of the heartbeat to send now, if one is due.
    pub(crate) fn beat(&mut self, now: Mono) -> Option<u64> {
        if now < self.beaten.plus_ms(self.heartbeat_ms) || self.sent.len() >= IN_FLIGHT {
            return None;
        }
        let n = self.next;
        self.next += 1;
        self.beaten = now;
        self.sent.push_back((n, now));
        Some(n)
    }

    /// Heartbeat `n` was acknowledged.
    pub(crate) fn acknowledged(&mut self, n: u64) {
        while let Some(&(first, sent)) = self.sent.front().filter(|(first, _)| *first <= n) {
            self.sent.pop_front();
            if first == n {
                let until = sent.plus_ms(self.lease_ms);
                self.until = self.until.max(Some(until));
            }
        }
    }

    /// The master said something.
    pub(crate) fn heard(&mut self, now: Mono) {
        self.heard = now;
    }

    /// Whether the master has been silent for a whole lease.
    pub(crate) fn is_silent(&self, now: Mono) -> bool {
        now >= self.heard.plus_ms(self.lease_ms)
    }

    /// Whether there is a lease that has not run out.
    pub(crate) fn is_held(&self, now: Mono) -> bool {
        self.until.is_some_and(|until| now < until)
    }

    /// Whether the lease has run out; says so once for each lease.
    pub(crate) fn has_ended(&mut self, now: Mono) -> bool {
        let ended = self.until.is_some_and(|until| now >= until);
        if ended {
            self.until = None;
        }
        ended
    }

    /// Milliseconds between two looks at the clock: often enough for the heartbeat.
    pub(crate) fn tick_ms(&self) -> u64 {
        (self.heartbeat_ms / 4).clamp(10, 500)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Mono {
        Mono(0).plus_ms(ms)
    }

    #[test]
    fn a_lease_counts_from_the_sending() {
        let mut lease = Lease::new();
        assert!(!lease.has_ended(at(1 << 40)), "without a session there is no lease");
        lease.begin(at(0), 2_000, 10_000);
        assert_eq!(lease.beat(at(1_999)), None);
        assert_eq!(lease.beat(at(2_000)), Some(1));
        assert_eq!(lease.beat(at(4_000)), Some(2));
        // The answer is late; what counts is 2,000.
        lease.acknowledged(1);
        assert!(!lease.has_ended(at(11_999)) && lease.is_held(at(11_999)));
        assert!(!lease.is_held(at(12_000)), "whether or not it was said");
        assert!(lease.has_ended(at(12_000)));
        assert!(!lease.has_ended(at(13_000)) && !lease.is_held(at(1)), "said once");
        lease.acknowledged(2);
        assert!(lease.has_ended(at(14_000)), "a late answer opens a new, short lease");
    }

    #[test]
    fn silence_is_noticed() {
        let mut lease = Lease::new();
        lease.begin(at(0), 100, 300);
        lease.heard(at(100));
        assert!(!lease.is_silent(at(399)));
        assert!(lease.is_silent(at(400)));
    }
}
