//! Windows of whole documents.
//!
//! Duty: lays documents into windows by best fit, the longest first (Coffman, Garey, Johnson,
//! "Approximation algorithms for bin packing", 1984), so that a document that fits into a window
//! is never cut; a longer one is cut into full windows and a rest. A function of the documents'
//! lengths alone. A document of n tokens takes n places: its last token is only a label, and before
//! its first one stands what opens it, the end of the document before. Where nothing opens
//! documents it takes n - 1, and its first token is no label.
//! Limits: 16 bytes per document and 8 per window. Prohibition: reads no token to lay it.

use super::error::DataError;
use super::stream::TokenStream;
use super::window::{IGNORED, Mark, WindowLayout, WindowRows};

/// The windows of a stream.
#[derive(Clone, Debug)]
pub struct WholeDocuments {
    /// In the order of the windows, and inside a window in the order of the stream.
    pieces: Vec<Piece>,
    /// The first piece of each window, and their number.
    firsts: Vec<usize>,
}

/// Tokens of one document, one place each.
#[derive(Clone, Copy, Debug)]
struct Piece {
    /// Position in the stream.
    start: u64,
    places: u32,
}

impl WholeDocuments {
    /// Lays a stream into windows of `sequence_length` tokens; `opened` says that the token before
    /// a document opens it.
    ///
    /// # Errors
    /// [`DataError::Chunk`] if a shard is damaged.
    ///
    /// # Panics
    /// For windows of more than `u32::MAX` tokens.
    pub fn new(
        stream: &TokenStream,
        sequence_length: usize,
        opened: bool,
    ) -> Result<Self, DataError> {
        let length = u32::try_from(sequence_length).expect("positions are i32");
        let mut pieces = Vec::new();
        let mut start = 0;
        // Where nothing opens documents, the last token of one has no label.
        let (before, unlabelled) = if opened { (1, 0) } else { (0, 1) };
        let mut cut = |end: u64| {
            let end = end - before;
            while start + unlabelled < end {
                let places = (end - unlabelled - start).min(u64::from(length));
                pieces.push(Piece { start, places: places as u32 });
                start += places;
            }
            start = end;
        };
        let tokens = stream.len();
        if tokens > 0 {
            stream.for_each_border(0, tokens - 1, &mut cut)?;
            cut(tokens);
        }
        pieces.sort_by_key(|piece| std::cmp::Reverse(piece.places));
        let mut windows = OpenWindows::new(length);
        let mut placed: Vec<(usize, Piece)> =
            pieces.into_iter().map(|piece| (windows.place(piece.places), piece)).collect();
        placed.sort_unstable_by_key(|&(window, piece)| (window, piece.start));
        let mut firsts = Vec::with_capacity(windows.count + 1);
        for (number, &(window, _)) in placed.iter().enumerate() {
            if window == firsts.len() {
                firsts.push(number);
            }
        }
        firsts.push(placed.len());
        Ok(Self { pieces: placed.into_iter().map(|(_, piece)| piece).collect(), firsts })
    }

    /// Number of windows.
    pub fn windows(&self) -> u64 {
        self.firsts.len() as u64 - 1
    }

    /// Labels of a window that are not ignored.
    pub fn targets(&self, window: u64) -> u64 {
        self.pieces_of(window).iter().map(|piece| u64::from(piece.places)).sum()
    }

    /// Fills the rows of a window and returns [`Self::targets`]. Behind the documents stand
    /// `padding` and no labels, in a segment of their own.
    ///
    /// # Errors
    /// [`DataError::Chunk`] if a shard is damaged.
    pub fn fill(
        &self,
        stream: &TokenStream,
        window: u64,
        layout: &WindowLayout,
        padding: i32,
        rows: WindowRows<'_>,
    ) -> Result<u64, DataError> {
        let WindowRows { tokens, labels, segments, positions } = rows;
        let length = layout.sequence_length;
        let mut mark = Mark::new(layout.reset_positions && layout.document_masks);
        let mut at = 0;
        for piece in self.pieces_of(window) {
            let end = at + piece.places as usize;
            stream.read(piece.start, &mut tokens[at..end])?;
            stream.read(piece.start + 1, &mut labels[at..end])?;
            if layout.document_masks {
                mark.document(end, segments, positions);
            }
            at = end;
        }
        tokens[at..].fill(padding);
        labels[at..].fill(IGNORED);
        if at < length || !layout.document_masks {
            mark.document(length, segments, positions);
        }
        Ok(at as u64)
    }

    fn pieces_of(&self, window: u64) -> &[Piece] {
        let window = window as usize;
        &self.pieces[self.firsts[window]..self.firsts[window + 1]]
    }
}

/// Windows by how many places they have left.
struct OpenWindows {
    /// Windows with 0, 1, 2, ... places left.
    by_room: Vec<Vec<usize>>,
    /// One bit for each list that is not empty.
    some: Vec<u64>,
    count: usize,
}

impl OpenWindows {
    fn new(length: u32) -> Self {
        let rooms = length as usize + 1;
        Self { by_room: vec![Vec::new(); rooms], some: vec![0; rooms.div_ceil(64)], count: 0 }
    }

    /// The fullest window with room, or a new one.
    fn place(&mut self, places: u32) -> usize {
        let places = places as usize;
        let (window, room) = match self.least_room(places) {
            Some(room) => {
                let list = &mut self.by_room[room];
                let window = list.pop().expect("its bit is set");
                if list.is_empty() {
                    self.some[room / 64] &= !(1 << (room % 64));
                }
                (window, room)
            }
            None => {
                self.count += 1;
                (self.count - 1, self.by_room.len() - 1)
            }
        };
        let room = room - places;
        if room > 0 {
            self.by_room[room].push(window);
            self.some[room / 64] |= 1 << (room % 64);
        }
        window
    }

    /// The least room of at least `places` that a window has.
    fn least_room(&self, places: usize) -> Option<usize> {
        let first = places / 64;
        let mut word = self.some[first] & (u64::MAX << (places % 64));
        for number in first.. {
            if word != 0 {
                return Some(number * 64 + word.trailing_zeros() as usize);
            }
            word = *self.some.get(number + 1)?;
        }
        None
    }
}

#[cfg(test)]
mod tests;
