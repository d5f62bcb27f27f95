import type { FormEvent, KeyboardEvent } from "react";
import { useText } from "../../i18n";
import { Button, TextArea } from "../../ui";
import styles from "./playground.module.css";

interface ComposerProps {
  prompt: string;
  onPrompt: (prompt: string) => void;
  running: boolean;
  /** Why nothing can be sent now; null when it can. */
  hindrance: string | null;
  /** Whether a system prompt goes with it: it may be out of sight. */
  hasSystem: boolean;
  onSend: (prompt: string) => void;
  onStop: () => void;
}

/** Where the question is typed. Control or Command with Enter sends it. */
export function Composer({ prompt, onPrompt, running, hindrance, hasSystem, onSend, onStop }: ComposerProps) {
  const t = useText();
  const send = () => {
    if (running || hindrance || !prompt.trim()) return;
    onSend(prompt);
    onPrompt("");
  };
  const submit = (event: FormEvent) => {
    event.preventDefault();
    send();
  };
  const press = (event: KeyboardEvent) => {
    // While an input method composes, Enter takes what it suggests.
    if (event.key !== "Enter" || event.nativeEvent.isComposing || !(event.ctrlKey || event.metaKey)) return;
    event.preventDefault();
    send();
  };
  return (
    <form className={styles.composer} onSubmit={submit}>
      <TextArea
        bare
        label={t("playground.message")}
        placeholder={t("playground.message_placeholder")}
        rows={2}
        value={prompt}
        onChange={(event) => onPrompt(event.target.value)}
        onKeyDown={press}
      />
      <div className={styles.sending}>
        <span className="small quiet">
          {hindrance ?? t("playground.send_keys")} {hasSystem && t("playground.with_system")}
        </span>
        {running ? (
          <Button icon="stop" onClick={onStop}>
            {t("playground.stop")}
          </Button>
        ) : (
          <Button kind="primary" icon="playground" type="submit" disabled={!prompt.trim() || hindrance !== null}>
            {t("playground.send")}
          </Button>
        )}
      </div>
    </form>
  );
}
