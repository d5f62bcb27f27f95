import { type TextKey, useText } from "../../i18n";

const ROLES: Record<string, TextKey> = {
  system: "completions.role_system",
  developer: "completions.role_developer",
  user: "completions.role_user",
  assistant: "completions.role_assistant",
  tool: "completions.role_tool",
  function: "completions.role_tool",
};

/** Who says a message, in the reader's language; a role that nobody knows by its own name. */
export function useRoleName(): (role: string) => string {
  const t = useText();
  return (role) => {
    const known = Object.hasOwn(ROLES, role) ? ROLES[role] : undefined;
    return known ? t(known) : String(role);
  };
}
