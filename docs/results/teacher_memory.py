"""What a process holds at most that trains a teacher of 6 layers x 384 on 32 texts at a time, for ever longer texts (SCALING).

OMP_NUM_THREADS=1 python docs/results/teacher_memory.py
"""

import torch
from transformers import BertConfig, BertForSequenceClassification

from adabert_core.attention import replace_attention
from adabert_core.dropout import replace_dropout
from adabert_core.memory import status_bytes
from adabert_core.runtime import make_accelerator

BATCH, STEPS = 32, 5
accelerator = make_accelerator("cpu", "auto")
sizes = {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12, "intermediate_size": 1536}
model = BertForSequenceClassification(BertConfig(**sizes)).train()
replace_dropout(model)
replace_attention(model)
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)
for length in (64, 128, 192, 256, 384):
    ids = torch.randint(1000, 20000, (BATCH, length))
    for _ in range(STEPS):
        with accelerator.autocast():
            loss = model(input_ids=ids, attention_mask=torch.ones_like(ids), labels=torch.zeros(BATCH, dtype=torch.long)).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    print(f"{length} tokens: {status_bytes('VmHWM') / 1e9:.1f} GB", flush=True)
