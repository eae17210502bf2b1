"""A new teacher family: a deep averaging network (Iyyer et al. 2015), which transformers knows once this is imported."""

from torch import nn
from transformers import AutoConfig, AutoModelForSequenceClassification, PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput, SequenceClassifierOutput


class DanConfig(PreTrainedConfig):
    model_type = "dan"
    vocab_size, hidden_size, num_hidden_layers, pad_token_id = 30522, 128, 2, 0


class DanModel(PreTrainedModel):
    config_class = DanConfig

    def __init__(self, config):
        super().__init__(config)
        self.words = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(nn.Linear(config.hidden_size, config.hidden_size) for _ in range(config.num_hidden_layers))
        self.post_init()

    def get_input_embeddings(self):
        return self.words  # the student's words start from them, and replacements are looked for among them

    def forward(self, input_ids, attention_mask, **kwargs):
        states, mask = [self.words(input_ids)], attention_mask.unsqueeze(-1)
        for layer in self.layers:  # every position hears of the mean of all real ones
            mean = (states[-1] * mask).sum(1, keepdim=True) / mask.sum(1, keepdim=True)
            states.append(states[-1] + layer(mean).tanh())
        return BaseModelOutput(states[-1], tuple(states))  # hidden_states: one probe each


class DanForSequenceClassification(PreTrainedModel):
    config_class, base_model_prefix = DanConfig, "dan"

    def __init__(self, config):
        super().__init__(config)
        self.dan, self.head = DanModel(config), nn.Linear(config.hidden_size, config.num_labels)
        self.post_init()

    def forward(self, input_ids, attention_mask, **kwargs):
        out = self.dan(input_ids, attention_mask)
        return SequenceClassifierOutput(logits=self.head(out.last_hidden_state[:, 0]), hidden_states=out.hidden_states)


AutoConfig.register("dan", DanConfig)
AutoModelForSequenceClassification.register(DanConfig, DanForSequenceClassification)
