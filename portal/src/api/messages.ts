// Messages of chats as text, wherever they come from: stored, in a file, in an eval.

import type { ChatMessage } from "./types";

/** A message's words; of its parts, those that are text. */
export function wordsOf(message: ChatMessage | undefined): string {
  const { content } = message ?? {};
  return typeof content === "string" ? content : (content ?? []).map((part) => part.text ?? "").join("\n");
}

/** All that a message says: its words, what stands in for parts that are no text, what it refuses, and its calls. */
export function said(message: ChatMessage | undefined): string {
  if (!message) return "";
  const { content } = message;
  const text =
    typeof content === "string" ? content : (content ?? []).map((part) => part.text ?? `[${part.type}]`).join("\n");
  const calls = (message.tool_calls ?? []).map(
    (call) => `${call.function?.name ?? ""}(${call.function?.arguments ?? ""})`,
  );
  return [text, message.refusal ?? "", ...calls].filter(Boolean).join("\n");
}

/** What the user asked last. */
export const lastQuestion = (messages: ChatMessage[]): ChatMessage | undefined =>
  messages.findLast((message) => message.role === "user");

/** The conversation of a line of a training file; null for a line that holds none, or was cut off. */
export function messagesOf(line: string): ChatMessage[] | null {
  try {
    const { messages } = JSON.parse(line) as { messages?: unknown };
    const isChat = Array.isArray(messages) && messages.every((message) => typeof message?.role === "string");
    return isChat ? (messages as ChatMessage[]) : null;
  } catch {
    return null;
  }
}
