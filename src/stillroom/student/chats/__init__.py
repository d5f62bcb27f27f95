"""Chats as tokens: the same for training and serving."""
