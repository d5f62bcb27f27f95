// The first rows of a training file, read without fetching the rest of it.

import { ApiError } from "../../api/http";
import type { ChatMessage } from "../../api/types";

/** A row as the sample shows it. */
export interface Example {
  id: string;
  question: string;
  answer: string;
  calls: string[];
}

const LONGEST = 200;
const ENOUGH_BYTES = 400_000;

export async function firstExamples(file: string, count: number, signal: AbortSignal): Promise<Example[]> {
  const text = await beginningOf(`/v1/files/${encodeURIComponent(file)}/content`, count, signal);
  return text
    .split("\n")
    .filter((line) => line.trim())
    .slice(0, count)
    .flatMap((line, index) => {
      const messages = messagesOf(line);
      return messages ? [exampleOf(messages, `${index}`)] : [];
    });
}

async function beginningOf(where: string, lines: number, signal: AbortSignal): Promise<string> {
  const answer = await fetch(where, { credentials: "same-origin", signal });
  if (!answer.ok || !answer.body) throw new ApiError(answer.statusText, answer.status);
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  while (text.length < ENOUGH_BYTES && text.split("\n").length <= lines) {
    const { done, value } = await reader.read();
    if (done) return text;
    text += value;
  }
  await reader.cancel();
  return text;
}

/** The messages of a line; null for one that is no chat example, or was cut off. */
function messagesOf(line: string): ChatMessage[] | null {
  try {
    const { messages } = JSON.parse(line) as { messages?: ChatMessage[] };
    return Array.isArray(messages) ? messages : null;
  } catch {
    return null;
  }
}

function exampleOf(messages: ChatMessage[], id: string): Example {
  const answer = messages.findLast((message) => message.role === "assistant");
  const question = messages.findLast((message) => message.role === "user");
  return {
    id,
    question: textOf(question),
    answer: textOf(answer),
    calls: (answer?.tool_calls ?? []).map((call) => call.function?.name ?? ""),
  };
}

function textOf(message: ChatMessage | undefined): string {
  const { content } = message ?? {};
  const text = typeof content === "string" ? content : (content ?? []).map((part) => part.text ?? "").join(" ");
  return text.length > LONGEST ? `${text.slice(0, LONGEST)}…` : text;
}
