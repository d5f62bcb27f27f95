import { type FormEvent, useEffect, useState } from "react";
import { useForgotten, useHasEnded, useSignIn } from "../api/session";
import { useText } from "../i18n";
import { Button, ErrorNote, Note, Snippet, TextInput } from "../ui";
import { Preferences } from "./preferences";
import styles from "./sign_in.module.css";

export function SignIn({ refused }: { refused: unknown }) {
  const t = useText();
  const [key, setKey] = useState("");
  const entering = useSignIn();
  const ended = useHasEnded();
  useForgotten();
  useEffect(() => {
    document.title = t("signin.title");
  }, [t]);
  const submit = (event: FormEvent) => {
    event.preventDefault();
    if (key.trim() && !entering.isPending) entering.mutate(key.trim());
  };
  const error = entering.error ?? refused;
  return (
    <main className={styles.page}>
      <form className={styles.box} onSubmit={submit}>
        <div className={styles.head}>
          <img src="/favicon.svg" alt="" width={34} height={34} />
          <h1>{t("signin.title")}</h1>
        </div>
        <p className="quiet">{t("signin.text")}</p>
        {error == null && ended && <Note tone="warn">{t("signin.ended")}</Note>}
        {error != null && <ErrorNote error={error} />}
        <TextInput
          label={t("signin.key")}
          hint={t("signin.hint")}
          type="password"
          autoComplete="current-password"
          value={key}
          onChange={(event) => setKey(event.target.value)}
          autoFocus
        />
        <Button kind="primary" type="submit" busy={entering.isPending}>
          {t("signin.enter")}
        </Button>
        <p className="small quiet">{t("signin.command")}</p>
        <Snippet label={t("signin.command")} code="stillroom portal" />
        <Preferences />
      </form>
    </main>
  );
}
