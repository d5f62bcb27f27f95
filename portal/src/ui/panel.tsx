import { type ReactNode, useEffect, useId, useRef } from "react";
import { useText } from "../i18n";
import { IconButton } from "./button";

interface PanelProps {
  title: ReactNode;
  onClose: () => void;
  children: ReactNode;
  actions?: ReactNode;
}

/** Details beside a list, which stays usable. Takes the focus when opened, closes by Escape, gives the focus back. */
export function Panel({ title, onClose, children, actions }: PanelProps) {
  const t = useText();
  const panel = useRef<HTMLElement>(null);
  const name = useId();
  useEffect(() => {
    const before = document.activeElement;
    panel.current?.focus({ preventScroll: true });
    return () => {
      if (before instanceof HTMLElement && before.isConnected) before.focus({ preventScroll: true });
    };
  }, []);
  useEffect(() => {
    const close = (event: KeyboardEvent) => {
      if (event.key === "Escape" && !event.defaultPrevented && !document.querySelector("dialog[open]")) onClose();
    };
    document.addEventListener("keydown", close);
    return () => document.removeEventListener("keydown", close);
  }, [onClose]);
  return (
    <section ref={panel} className="panel" role="dialog" aria-labelledby={name} tabIndex={-1}>
      <div className="panel-head">
        <h2 id={name}>{title}</h2>
        <div className="row">
          {actions}
          <IconButton icon="close" label={t("common.close")} onClick={onClose} />
        </div>
      </div>
      <div className="panel-body">{children}</div>
    </section>
  );
}
