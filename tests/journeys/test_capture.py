"""Stored completions through the official SDKs."""

from __future__ import annotations

from openai import AzureOpenAI


def test_eleven_stored_chats_are_listed_back_by_their_metadata(azure: AzureOpenAI) -> None:
    metadata = {"agent_type": "dolphin", "category": "test"}
    for number in range(11):
        azure.chat.completions.create(
            model="gpt-4o",
            messages=[{"role": "system", "content": "イルカの先生として答える。"}, {"role": "user", "content": f"質問{number}"}],
            store=True,
            metadata=metadata,
        )
    found = list(azure.chat.completions.list(metadata={"agent_type": "dolphin"}, limit=3))
    assert [completion.choices[0].message.content for completion in found] == [f"質問{n}" for n in range(11)]
