"""The compiled engine: when each tile passes each block, as a max-plus recurrence."""

import numpy as np
from numba import njit

from simulator.timing.schedule import Makespan, Schedule


def run(schedule: Schedule) -> Makespan:
    """Cycles of a schedule.

    Between two neighbours lies a double buffer: a block starts tile t when it is free of tile t-1,
    its predecessor's results for tile t are there, and its successor is free of tile t-2. The DMA
    engine works through a fixed programme, load(t) then store(t-S) with S blocks; an empty
    transfer takes no time and waits for nothing. Tiles add to the same half of the output buffer
    until one is stored; the last block starts on a new half when the store before the latest is
    done. The event engine does the same, step by step.

    Of several waits that end together, the first is to blame: for the own previous tile, for the
    predecessor, for the successor; of several steps that end together, the one whose tile plus
    block number is lowest, then the earlier block.
    """
    critical = np.zeros(len(schedule.names), np.int64)
    cycles = _makespan(
        schedule.load_cycles, schedule.load_latency_cycles, schedule.occupancy_cycles,
        schedule.latency_cycles, schedule.store_cycles, schedule.limits, critical,
    )  # fmt: skip
    parts = zip(schedule.names, critical, strict=True)
    blamed = {name: int(part) for name, part in parts if part}
    return Makespan(cycles=int(cycles), critical_cycles=blamed)


@njit(cache=True, nogil=True)
def _makespan(load, load_latency, occupancy, latency, store, limits, critical):
    """Makespan; fills `critical`, one entry for each of the schedule's `names`."""
    stages, tiles = occupancy.shape
    # Nodes: loads, then the blocks' tiles, then stores. What each waited for last: `cause`.
    first_store = (stages + 1) * tiles
    nodes = first_store + tiles
    begin = np.zeros(nodes, np.int64)
    cause = np.full(nodes, -1, np.int64)
    free = np.zeros((stages, tiles), np.int64)  # when the block is free of the tile
    ready = np.zeros((stages, tiles), np.int64)  # when its results are there
    loaded = np.zeros(tiles, np.int64)
    # The two latest stored tiles before the one that the last block is at.
    latest, older = np.int64(-1), np.int64(-1)
    stored = np.zeros(tiles, np.int64)
    dma, dma_node = np.int64(0), np.int64(-1)
    end, end_node = np.int64(0), np.int64(-1)
    # Step i: load tile i, block s on tile i-s, store tile i-S; whatever these wait for was
    # worked out in an earlier step.
    for step in range(tiles + stages):
        if step < tiles and load[step] > 0:
            start, waited = dma, dma_node
            if step >= 2 and free[0, step - 2] > start:
                start, waited = free[0, step - 2], tiles + step - 2
            begin[step], cause[step] = start, waited
            dma, dma_node = start + load[step], np.int64(step)
            loaded[step] = dma + load_latency
        for s in range(stages):
            t = step - s
            if t < 0 or t >= tiles:
                continue
            node = (s + 1) * tiles + t
            start, waited = np.int64(0), np.int64(-1)
            if t >= 1:
                start, waited = free[s, t - 1], node - 1
            if s > 0 and ready[s - 1, t] > start:
                start, waited = ready[s - 1, t], node - tiles
            if s == 0 and loaded[t] > start:
                start, waited = loaded[t], np.int64(t)
            # The successor must have emptied the half of the buffer filled two tiles ago; the DMA
            # engine, the half that was stored from before the latest.
            if t >= 2 and s + 1 < stages and free[s + 1, t - 2] > start:
                start, waited = free[s + 1, t - 2], node + tiles - 2
            if s + 1 == stages:
                if t >= 1 and store[t - 1] > 0:
                    older, latest = latest, np.int64(t - 1)
                if older >= 0 and stored[older] > start:
                    start, waited = stored[older], first_store + older
            begin[node], cause[node] = start, waited
            free[s, t] = start + occupancy[s, t]
            ready[s, t] = free[s, t] + latency[s, t]
            if ready[s, t] > end:
                end, end_node = ready[s, t], node
        t = step - stages
        if t >= 0 and store[t] > 0:
            node = first_store + t
            start, waited = dma, dma_node
            if ready[stages - 1, t] > start:
                start, waited = ready[stages - 1, t], stages * tiles + t
            begin[node], cause[node] = start, waited
            dma, dma_node = start + store[t], np.int64(node)
            stored[t] = dma
            if dma > end:
                end, end_node = dma, np.int64(node)
    later, node = end, end_node
    while node >= 0:
        if node < tiles or node >= first_store:
            limit = np.int64(0)
        else:
            limit = np.int64(limits[node // tiles - 1, node % tiles])
        critical[limit] += later - begin[node]
        later, node = begin[node], cause[node]
    return end
