"""When each tile of a layer passes each block: a max-plus recurrence, compiled."""

import numpy as np
from numba import njit


@njit(cache=True, nogil=True)
def makespan_cycles(load, blocks, store):
    """Cycles from the first load to the last store.

    Every tile is loaded by the DMA engine, passes the blocks in order and is stored by the same
    DMA engine. Between two neighbours lies a double buffer: a block starts tile t when it has
    finished tile t-1, its predecessor has finished tile t, and its successor has finished tile
    t-2. The DMA engine works through a fixed programme, load(t) then store(t-S) with S blocks; an
    empty transfer takes no time and waits for nothing.

    Args:
        load: `(T,)` int64 cycles.
        blocks: `(S, T)` int64 cycles, S at least 1.
        store: `(T,)` int64 cycles.

    Returns:
        int64 cycles.
    """
    stages, tiles = blocks.shape
    loaded = np.zeros(tiles, np.int64)
    finish = np.zeros((stages, tiles), np.int64)
    stored = np.zeros(tiles, np.int64)
    dma = np.int64(0)
    end = np.int64(0)
    # Step i: load tile i, block s on tile i-s, store tile i-S; whatever these wait for was
    # worked out in an earlier step.
    for step in range(tiles + stages):
        if step < tiles and load[step] > 0:
            if step >= 2:
                dma = max(dma, finish[0, step - 2])
            dma += load[step]
            loaded[step] = dma
        for s in range(stages):
            t = step - s
            if t < 0 or t >= tiles:
                continue
            start = finish[s - 1, t] if s > 0 else loaded[t]
            if t >= 1:
                start = max(start, finish[s, t - 1])
            if t >= 2:
                # The successor must have emptied the half of the buffer filled two tiles ago.
                start = max(start, finish[s + 1, t - 2] if s + 1 < stages else stored[t - 2])
            finish[s, t] = start + blocks[s, t]
            end = max(end, finish[s, t])
        t = step - stages
        if t >= 0 and store[t] > 0:
            dma = max(dma, finish[stages - 1, t]) + store[t]
            stored[t] = dma
            end = max(end, dma)
    return end
