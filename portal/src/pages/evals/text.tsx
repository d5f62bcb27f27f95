import { useText } from "../../i18n";
import styles from "./evals.module.css";

interface TextProps {
  title: string;
  text: string;
  tone?: "teacher" | "student";
}

/** What somebody wrote, under a title; long texts scroll in their frame. */
export function Text({ title, text, tone }: TextProps) {
  const t = useText();
  return (
    <div className={styles.text} data-tone={tone}>
      <h3 className="small said">{title}</h3>
      {/* biome-ignore lint/a11y/useSemanticElements: a text that scrolls, no part of a form and no landmark */}
      <div
        className={`${styles.words} said`}
        role="group"
        aria-label={title}
        // biome-ignore lint/a11y/noNoninteractiveTabindex: what scrolls must be reachable by keyboard
        tabIndex={0}
      >
        {text || <span className="quiet">{t("evals.nothing_said")}</span>}
      </div>
    </div>
  );
}
