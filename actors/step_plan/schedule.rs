//! From a step as one list to a plan on streams: one pass that cuts runs, brings work forward,
//! and finds out who waits for whom.
//!
//! Nothing here knows what a step is. Order between streams follows from what works read and write
//! ([`Memory::touches`]): whoever touches what another stream writes, or writes what it touches,
//! waits for it.

use octet_kernels::device::STREAMS;
use octet_kernels::ops::Stream;

use crate::step_plan::step::Listed;
use crate::step_plan::touches::{Memory, Touch};
use crate::step_plan::work::{Entry, Mark, Run, Work};

/// The plan of a step: who runs what, behind which marks; and how many marks there are.
pub(super) fn schedule(list: Vec<Listed>, memory: &Memory<'_>) -> (Vec<Entry>, usize) {
    let mut streams = Streams::new(memory);
    for work in bring_forward(list, memory) {
        streams.issue(work);
    }
    (streams.entries, streams.marks)
}

/// The list with runs in pieces, and what may come early as early as what it touches allows.
/// What is brought forward to one stream keeps its order.
fn bring_forward(list: Vec<Listed>, memory: &Memory<'_>) -> Vec<Work> {
    let mut stays: Vec<Work> = Vec::new();
    let mut moves: Vec<(usize, Work)> = Vec::new();
    // By position in the list: where it is among what stays.
    let mut places = Vec::with_capacity(list.len());
    let mut last = vec![Last::default(); memory.cells()];
    let mut floors = [0; STREAMS];
    for Listed { work, earliest } in list {
        places.push(stays.len());
        if let Some(earliest) = earliest {
            let (floor, touches) =
                (&mut floors[memory.stream(&work) as usize], memory.touches(&work));
            let needs = touches.iter().map(|t| last[memory.index(t.cell)].before(t.writes));
            let place = needs.fold(places[earliest].max(*floor), usize::max);
            *floor = place;
            for touch in touches {
                last[memory.index(touch.cell)].note(touch.writes, place);
            }
            moves.push((place, work));
            continue;
        }
        for piece in pieces(work, memory) {
            let touches = memory.touches(&piece);
            stays.push(piece);
            for touch in touches {
                last[memory.index(touch.cell)].note(touch.writes, stays.len());
            }
        }
    }
    moves.sort_by_key(|m| m.0);
    let mut moves = moves.into_iter().peekable();
    let mut works = Vec::with_capacity(places.len());
    for (place, work) in stays.into_iter().enumerate() {
        while let Some((_, early)) = moves.next_if(|m| m.0 <= place) {
            works.push(early);
        }
        works.push(work);
    }
    works.extend(moves.map(|m| m.1));
    works
}

/// A run as small as it may have to be cut.
fn pieces(work: Work, memory: &Memory<'_>) -> Vec<Work> {
    let Work::Run(run) = work else { return vec![work] };
    let (first, last) = (run.nodes.start, run.nodes.end);
    let edges: Vec<usize> = [first].into_iter().chain(memory.cuts(&run)).chain([last]).collect();
    let piece = |edge: &[usize]| Work::Run(Run { nodes: edge[0]..edge[1], ..run.clone() });
    edges.windows(2).map(piece).collect()
}

/// How far along a stream, or the list, somebody last touched a cell. 0: never.
#[derive(Debug, Clone, Copy, Default)]
struct Last {
    read: usize,
    write: usize,
}

impl Last {
    /// What must have been passed by whoever reads it, or writes it.
    fn before(self, writes: bool) -> usize {
        if writes { self.write.max(self.read) } else { self.write }
    }

    fn note(&mut self, writes: bool, at: usize) {
        if writes { self.write = at } else { self.read = at }
    }
}

/// How much of every stream is known to be done.
type Clock = [usize; STREAMS];

/// What a stream has been given, and where others can wait for it.
struct Issued {
    /// The entry in the plan; none if it is of the step before.
    entry: Option<usize>,
    mark: Option<Mark>,
    /// What is done when it is.
    clock: Clock,
}

struct Streams<'m, 'w> {
    memory: &'m Memory<'w>,
    entries: Vec<Entry>,
    marks: usize,
    /// By stream.
    issued: [Vec<Issued>; STREAMS],
    /// By stream: what it is behind.
    behind: [Clock; STREAMS],
    /// By stream and cell.
    last: [Vec<Last>; STREAMS],
}

impl<'m, 'w> Streams<'m, 'w> {
    /// As the step before has left them: compute is behind everything but what lasts, and whatever
    /// it has touched may still be in use when this step's first work is issued to it.
    fn new(memory: &'m Memory<'w>) -> Self {
        let never = || vec![Last::default(); memory.cells()];
        let mut streams = Self {
            memory,
            entries: Vec::new(),
            marks: Mark::lasting(memory.buckets()),
            issued: [const { Vec::new() }; STREAMS],
            behind: [[0; STREAMS]; STREAMS],
            last: [vec![Last { read: 1, write: 1 }; memory.cells()], never(), never(), never()],
        };
        for work in memory.lasting_before() {
            streams.note(memory.stream(&work), None, work.lasting(), &memory.touches(&work));
        }
        streams
    }

    fn issue(&mut self, work: Work) {
        let stream = self.memory.stream(&work);
        let touches = self.memory.touches(&work);
        let mut after = Vec::new();
        for (other, number) in self.waits(stream as usize, &touches) {
            after.push(self.mark(other, number));
            let passed = self.issued[other][number - 1].clock;
            let behind = &mut self.behind[stream as usize];
            (0..STREAMS).for_each(|i| behind[i] = behind[i].max(passed[i]));
        }
        if after.is_empty() && stream == Stream::Compute && self.extends_last(&work) {
            self.touch(stream, &touches);
            return;
        }
        let lasting = work.lasting();
        self.entries.push(Entry { work, stream, after, mark: lasting });
        self.note(stream, Some(self.entries.len() - 1), lasting, &touches);
    }

    /// The works of other streams, by number, that a stream must wait for; none that comes with
    /// another of them.
    fn waits(&self, stream: usize, touches: &[Touch]) -> Vec<(usize, usize)> {
        let others = (0..STREAMS).filter(|&other| other != stream);
        let mut waits: Vec<(usize, usize)> =
            others.map(|other| (other, self.needed(other, touches))).collect();
        waits.retain(|&(other, number)| number > self.behind[stream][other]);
        let clock = |(other, number): (usize, usize)| self.issued[other][number - 1].clock;
        let all = waits.clone();
        waits.retain(|&(other, number)| {
            let comes_with =
                |wait: &(usize, usize)| wait.0 != other && clock(*wait)[other] >= number;
            !all.iter().any(comes_with)
        });
        waits
    }

    /// How far along stream `other` the last work is that clashes with these touches.
    fn needed(&self, other: usize, touches: &[Touch]) -> usize {
        let last = |touch: &Touch| self.last[other][self.memory.index(touch.cell)];
        touches.iter().map(|touch| last(touch).before(touch.writes)).max().unwrap_or(0)
    }

    /// The mark of a stream's work by number, from 1.
    fn mark(&mut self, stream: usize, number: usize) -> Mark {
        let issued = &mut self.issued[stream][number - 1];
        *issued.mark.get_or_insert_with(|| {
            let mark = Mark(self.marks);
            self.marks += 1;
            let entry = issued.entry.expect("work of the step before that lasts has a mark");
            self.entries[entry].mark = Some(mark);
            mark
        })
    }

    /// Puts the next piece of the same run into the entry that is there.
    fn extends_last(&mut self, work: &Work) -> bool {
        let last = self.entries.last_mut().map(|entry| (entry.stream, &mut entry.work));
        let (Some((Stream::Compute, Work::Run(last))), Work::Run(next)) = (last, work) else {
            return false;
        };
        let joined = Run { nodes: last.nodes.start..next.nodes.end, ..next.clone() };
        let goes_on = last.nodes.end == next.nodes.start
            && *last == Run { nodes: last.nodes.clone(), ..joined.clone() };
        if goes_on {
            *last = joined;
        }
        goes_on
    }

    fn note(
        &mut self,
        stream: Stream,
        entry: Option<usize>,
        mark: Option<Mark>,
        touches: &[Touch],
    ) {
        let number = self.issued[stream as usize].len() + 1;
        self.behind[stream as usize][stream as usize] = number;
        let clock = self.behind[stream as usize];
        self.issued[stream as usize].push(Issued { entry, mark, clock });
        self.touch(stream, touches);
    }

    /// The last work of a stream has touched this.
    fn touch(&mut self, stream: Stream, touches: &[Touch]) {
        let number = self.issued[stream as usize].len();
        for touch in touches {
            let cell = self.memory.index(touch.cell);
            self.last[stream as usize][cell].note(touch.writes, number);
        }
    }
}
