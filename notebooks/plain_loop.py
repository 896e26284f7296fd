"""A plain PyTorch loop around the loader: stopped after any step, it goes on with the very same batches."""

from itertools import islice

import torch
from torch.nn.functional import cross_entropy


def train(net, loader, mean, checkpoint, until):
    """Trains up to step `until`, from where the checkpoint is if there is one; returns the last loss."""
    step, optimizer = 0, torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9)
    if checkpoint.exists():
        saved = torch.load(checkpoint)
        loader.check_fingerprint(saved["loader"])
        net.load_state_dict(saved["net"])
        optimizer.load_state_dict(saved["optimizer"])
        step = saved["step"]
    while step < until:
        epoch, first = divmod(step, loader.steps_per_epoch)
        for batch in islice(loader.epoch(epoch, first), until - step):
            loss = cross_entropy(net(batch.images_BCHW - mean), batch.labels_B)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            step += 1
    state = {"net": net.state_dict(), "optimizer": optimizer.state_dict(), "step": step, "loader": loader.fingerprint}
    torch.save(state, checkpoint)
    return loss.item()
