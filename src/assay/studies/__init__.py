"""The experiments that decide what each paper claims."""
