import { type ChangeEvent, useEffect, useRef, useState } from "react";
import { useText } from "../../i18n";
import { Icon } from "../../ui";
import styles from "./completions.module.css";

const PAUSE_MS = 150;

/** Free text. Words that an input method has not finished are not searched for. */
export function SearchBox({ search, onSearch }: { search: string; onSearch: (search: string) => void }) {
  const t = useText();
  const [text, setText] = useState(search);
  const composing = useRef(false);
  const timer = useRef<ReturnType<typeof setTimeout>>(undefined);
  const sent = useRef(search);
  useEffect(() => {
    // The address changed by itself: filters were cleared, or the reader went back.
    if (search === sent.current) return;
    sent.current = search;
    setText(search);
  }, [search]);
  useEffect(() => () => clearTimeout(timer.current), []);

  const send = (typed: string) => {
    clearTimeout(timer.current);
    if (composing.current || typed.trim() === sent.current) return;
    timer.current = setTimeout(() => {
      sent.current = typed.trim();
      onSearch(sent.current);
    }, PAUSE_MS);
  };
  const change = (event: ChangeEvent<HTMLInputElement>) => {
    setText(event.target.value);
    send(event.target.value);
  };
  return (
    <div className={styles.search}>
      <Icon name="search" />
      <input
        type="search"
        className="input"
        aria-label={t("completions.search")}
        placeholder={t("completions.search_hint")}
        autoComplete="off"
        spellCheck={false}
        maxLength={1000}
        value={text}
        onChange={change}
        onCompositionStart={() => {
          composing.current = true;
        }}
        onCompositionEnd={(event) => {
          composing.current = false;
          send(event.currentTarget.value);
        }}
      />
    </div>
  );
}
