import torch
from common import batches, model, tell

import real_backend as rb

rb.init()
net = model()
optimizer = rb.DistributedOptimizer(torch.optim.SGD(net.parameters(), lr=0.1), net.named_parameters())
for batch in batches(rb.rank()):
    optimizer.zero_grad()
    net(batch).square().mean().backward()
    optimizer.step()
tell(net)
rb.shutdown()
