// The first part of a file of any size, and what its lines say.

import { ApiError } from "../../api/http";
import type { ChatMessage } from "../../api/types";

const MOST_BYTES = 64 * 1024;

export interface Beginning {
  lines: string[];
  /** Whether the file goes on after these lines. */
  isPart: boolean;
}

/** Reads no more than is shown: the server sends files whole, so the rest is left unread. */
export async function beginningOf(id: string, size: number, signal: AbortSignal): Promise<Beginning> {
  const leave = new AbortController();
  signal.addEventListener("abort", () => leave.abort());
  const answer = await fetch(`/v1/files/${encodeURIComponent(id)}/content`, {
    credentials: "same-origin",
    cache: "no-store",
    signal: leave.signal,
  });
  if (!answer.ok || !answer.body) throw new ApiError(answer.statusText, answer.status);
  const bytes = await firstBytes(answer.body);
  leave.abort();
  const isPart = bytes.length < size;
  const lines = new TextDecoder().decode(bytes).split(/\r?\n/);
  // The last line was cut, unless it is all there is.
  if (lines.length > 1 && (isPart || lines.at(-1) === "")) lines.pop();
  return { lines, isPart };
}

async function firstBytes(body: ReadableStream<Uint8Array>): Promise<Uint8Array> {
  const reader = body.getReader();
  const found = new Uint8Array(MOST_BYTES);
  let length = 0;
  while (length < MOST_BYTES) {
    const { done, value } = await reader.read();
    if (done) break;
    const part = value.subarray(0, MOST_BYTES - length);
    found.set(part, length);
    length += part.length;
  }
  return found.subarray(0, length);
}

/** The conversation of a line of a training file; null for a line that holds none. */
export function messagesOf(line: string): ChatMessage[] | null {
  try {
    const { messages } = JSON.parse(line) as { messages?: unknown };
    const isChat = Array.isArray(messages) && messages.every((message) => typeof message?.role === "string");
    return isChat ? (messages as ChatMessage[]) : null;
  } catch {
    return null;
  }
}

/** A message's words, or the data that it has instead. */
export function wordsOf(message: ChatMessage): string {
  const { content, tool_calls } = message;
  const text = typeof content === "string" ? content : (content ?? []).map((part) => part.text ?? part.type).join("\n");
  const calls = (tool_calls ?? []).map((call) => `${call.function?.name ?? ""}(${call.function?.arguments ?? ""})`);
  return [text, ...calls].filter(Boolean).join("\n");
}
