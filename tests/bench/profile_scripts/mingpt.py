"""A loop as in minGPT: blocks of attention, AdamW with two groups, clipping, an epochless iterator over a loader."""

import torch
import torch.distributed as dist
from common import STEPS, tell
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, RandomSampler, TensorDataset


class Gpt(nn.Module):
    def __init__(self, vocabulary=64, width=32, length=16):
        super().__init__()
        self.tokens, self.places = nn.Embedding(vocabulary, width), nn.Parameter(torch.zeros(length, width))
        layer = nn.TransformerEncoderLayer(width, 4, 64, dropout=0.1, batch_first=True, norm_first=True)
        self.blocks = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(width, vocabulary)

    def forward(self, x, targets):
        mask = nn.Transformer.generate_square_subsequent_mask(x.shape[1])
        logits = self.head(self.blocks(self.tokens(x) + self.places, mask=mask))
        return logits, nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten())


dist.init_process_group("gloo")
rank = dist.get_rank()
net = DistributedDataParallel(Gpt())
decays = [each for each in net.parameters() if each.dim() >= 2]
others = [each for each in net.parameters() if each.dim() < 2]
optimizer = torch.optim.AdamW([{"params": decays, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}])
data = TensorDataset(torch.randint(64, (512, 17), generator=torch.Generator().manual_seed(rank)))
loader = DataLoader(data, sampler=RandomSampler(data, replacement=True, num_samples=10**6), batch_size=8)
iterator = iter(loader)
torch.manual_seed(rank)
for _ in range(STEPS):
    (batch,) = next(iterator)
    _, loss = net(batch[:, :-1], batch[:, 1:])
    net.zero_grad(set_to_none=True)
    loss.backward()
    nn.utils.clip_grad_norm_(net.parameters(), 1.0)
    optimizer.step()
tell(net)
dist.destroy_process_group()
