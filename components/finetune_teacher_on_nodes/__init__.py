"""The finetune_teacher_on_nodes component."""
