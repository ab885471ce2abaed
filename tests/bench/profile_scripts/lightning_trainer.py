"""lightning.Trainer under torchrun: automatic optimization, whose optimizers step with a closure; a checkpoint."""

import lightning
import torch
from common import model, tell
from torch.utils.data import DataLoader, TensorDataset


class Module(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.net = model()

    def training_step(self, batch, _):
        return self.net(batch[0]).square().mean()

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters())


data = TensorDataset(torch.randn(26 * 8 * 2, 32, generator=torch.Generator().manual_seed(0)))
module = Module()
trainer = lightning.Trainer(
    accelerator="cpu", devices=2, strategy="ddp", max_epochs=1, logger=False, enable_progress_bar=False,
    enable_model_summary=False, gradient_clip_val=1.0,
)  # fmt: skip
trainer.fit(module, DataLoader(data, batch_size=8))
tell(module)
