"""The order of examples: what a seed decides, and what processes and resumed epochs make of it."""

import torch

from mg.training.feed import DeviceFeed, Epoch


class Numbers(DeviceFeed):
    def preparation(self):
        return {}


FEED = Numbers(torch.arange(50.0)[:, None], torch.arange(50), [])


def indices(epoch: Epoch, first: int = 0) -> list[list[list[int]]]:
    """Examples by iteration and part."""
    return [[y.tolist() for _, y in parts] for parts in FEED.batches(epoch, first)]


def test_an_epoch_goes_on_where_it_was_left():
    epoch = Epoch(seed=1, number=2, iterations=6, batch=8, accumulate=2)
    whole = indices(epoch)
    assert [[len(part) for part in parts] for parts in whole] == [[4, 4]] * 6
    assert indices(epoch, first=4) == whole[4:]


def test_seed_and_number_decide_the_order():
    orders = [indices(Epoch(seed, number, 3, 8)) for seed, number in ((0, 0), (0, 1), (1, 0))]
    assert len({str(order) for order in orders}) == 3
    assert orders[0] == indices(Epoch(0, 0, 3, 8))


def test_processes_share_each_batch():
    """Together they compute the examples that one process computes alone."""
    alone = indices(Epoch(3, 0, 4, 8))
    shares = [indices(Epoch(3, 0, 4, 8, rank=rank, world=2)) for rank in (0, 1)]
    for (batch,), (first,), (second,) in zip(alone, *shares, strict=True):
        assert first + second == batch
