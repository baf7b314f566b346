//! The event queue: by true time, and by order of insertion within one instant.

use std::{cmp::Ordering, collections::BinaryHeap};

use super::clock::Instant;

struct Scheduled<E> {
    at: Instant,
    number: u64,
    event: E,
}

impl<E> PartialEq for Scheduled<E> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl<E> Eq for Scheduled<E> {}

impl<E> PartialOrd for Scheduled<E> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<E> Ord for Scheduled<E> {
    fn cmp(&self, other: &Self) -> Ordering {
        // The heap gives the greatest: the earliest is the greatest.
        (other.at, other.number).cmp(&(self.at, self.number))
    }
}

/// A queue of future events.
pub struct Queue<E> {
    heap: BinaryHeap<Scheduled<E>>,
    number: u64,
}

impl<E> Queue<E> {
    /// An empty queue.
    pub const fn new() -> Self {
        Self { heap: BinaryHeap::new(), number: 0 }
    }

    /// Puts an event at an instant.
    pub fn push(&mut self, at: Instant, event: E) {
        self.number += 1;
        self.heap.push(Scheduled { at, number: self.number, event });
    }

    /// Takes the earliest event.
    pub fn pop(&mut self) -> Option<(Instant, E)> {
        self.heap.pop().map(|scheduled| (scheduled.at, scheduled.event))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_time_then_by_insertion() {
        let mut queue = Queue::new();
        for (at, event) in [(5, 'c'), (1, 'a'), (5, 'd'), (1, 'b')] {
            queue.push(at, event);
        }
        let order: String = std::iter::from_fn(|| queue.pop()).map(|(_, event)| event).collect();
        assert_eq!(order, "abcd");
    }
}
