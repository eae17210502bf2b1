"""The finetune_teacher component."""
