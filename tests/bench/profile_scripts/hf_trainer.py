"""transformers.Trainer: a tiny BERT made from a configuration, gradient accumulation, clipping, evaluation."""

import torch
from common import tell
from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainingArguments

config = BertConfig(
    vocab_size=64, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, num_labels=2,
    max_position_embeddings=16,
)  # fmt: skip
torch.manual_seed(0)
net = BertForSequenceClassification(config)
generator = torch.Generator().manual_seed(0)
rows = [
    {"input_ids": torch.randint(64, (16,), generator=generator), "labels": int(label)}
    for label in torch.randint(2, (512,), generator=generator)
]
arguments = TrainingArguments(
    output_dir="trainer", max_steps=26, per_device_train_batch_size=4, gradient_accumulation_steps=2, use_cpu=True,
    report_to=[], logging_steps=10, eval_strategy="steps", eval_steps=10, save_strategy="no", seed=0,
    ddp_backend="gloo", disable_tqdm=True, ddp_find_unused_parameters=False,
)  # fmt: skip
trainer = Trainer(net, arguments, train_dataset=rows, eval_dataset=rows[:32])
trainer.train()
tell(net)
