export const KEYS = "/v1/stillroom/keys";
export const LONGEST_NAME = 64;

/** What a shell is told so that OpenAI's SDKs call this server with this key. */
export function exports(secret: string): string {
  return `export OPENAI_BASE_URL=${location.origin}/v1\nexport OPENAI_API_KEY=${secret}`;
}
