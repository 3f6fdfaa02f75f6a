"""What is wrong, on this machine and on hosts: questions, findings and advice. Nothing is written."""
