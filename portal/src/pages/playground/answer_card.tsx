// One side's answer to one question: the words as they come, then tokens, time and price.

import { type ReactNode, useEffect, useState } from "react";
import { Link } from "wouter";
import type { Price } from "../../api/types";
import { useText } from "../../i18n";
import { Badge, Button, ErrorNote, Note, useFormat } from "../../ui";
import { type Answer, figuresOf } from "./answer";
import { BrokenOff } from "./conversation";
import styles from "./playground.module.css";

interface AnswerCardProps {
  answer: Answer;
  /** All that was sent, for a guess of its tokens where the server tells none. */
  sent: string;
  price: Price | undefined;
  isTeacher: boolean;
  mustLoad: boolean;
  onAgain: (() => void) | undefined;
}

export function AnswerCard({ answer, sent, price, isTeacher, mustLoad, onAgain }: AnswerCardProps) {
  const t = useText();
  return (
    <article
      className={styles.answer}
      data-tone={isTeacher ? "teacher" : "student"}
      aria-label={t("playground.answer_of", { name: answer.model })}
      aria-busy={answer.state === "running"}
    >
      <header className={styles.answerHead}>
        <span className="said">{answer.model}</span>
        <Ending answer={answer} />
      </header>
      {answer.reasoning && (
        <details>
          <summary>{t("playground.reasoning")}</summary>
          <p className="said quiet small">{answer.reasoning}</p>
        </details>
      )}
      {answer.text ? (
        <div className={`said ${styles.words}`}>{answer.text}</div>
      ) : (
        <Wordless answer={answer} mustLoad={mustLoad} />
      )}
      {answer.state === "failed" && <Failure answer={answer} onAgain={onAgain} />}
      {answer.finish === "length" && <Note tone="warn">{t("playground.cut_off")}</Note>}
      {answer.state !== "running" && (answer.text || answer.usage) && (
        <FiguresLine answer={answer} sent={sent} price={price} />
      )}
    </article>
  );
}

function Ending({ answer }: { answer: Answer }) {
  const t = useText();
  if (answer.state === "stopped") return <Badge tone="warn">{t("playground.stopped")}</Badge>;
  if (answer.state === "failed") return <Badge tone="bad">{t("playground.failed")}</Badge>;
  if (!answer.stored || answer.state === "running") return null;
  return (
    <Link href={`/completions?open=${encodeURIComponent(answer.stored)}`} className="small">
      {t("playground.stored")}
    </Link>
  );
}

const PATIENCE_MS = 800;

/** Before the first letter: a student that is not in memory is loaded first, which takes seconds. */
function Wordless({ answer, mustLoad }: { answer: Answer; mustLoad: boolean }) {
  const t = useText();
  const waitedLong = useLater(PATIENCE_MS);
  if (answer.state === "done") return <p className="quiet">{t("playground.no_words")}</p>;
  if (answer.state !== "running") return null;
  return (
    <p className={styles.pending}>
      <span className="spinner" />
      {mustLoad && waitedLong ? t("playground.loading_model") : t("playground.waiting")}
    </p>
  );
}

function useLater(milliseconds: number): boolean {
  const [later, setLater] = useState(false);
  useEffect(() => {
    const timer = setTimeout(() => setLater(true), milliseconds);
    return () => clearTimeout(timer);
  }, [milliseconds]);
  return later;
}

function Failure({ answer, onAgain }: { answer: Answer; onAgain: (() => void) | undefined }) {
  const t = useText();
  const retry = onAgain ? { onRetry: onAgain } : {};
  if (!(answer.error instanceof BrokenOff)) return <ErrorNote error={answer.error} {...retry} />;
  return (
    <Note tone="bad" action={onAgain && <Button onClick={onAgain}>{t("common.try_again")}</Button>}>
      {t("playground.broken_off")}
    </Note>
  );
}

function FiguresLine({ answer, sent, price }: { answer: Answer; sent: string; price: Price | undefined }) {
  const t = useText();
  const { number, duration, money } = useFormat();
  const figures = figuresOf(answer, sent, price);
  return (
    <div className={styles.figures}>
      <dl>
        <Figure name={t("playground.prompt_tokens")}>{number(figures.promptTokens)}</Figure>
        <Figure name={t("playground.completion_tokens")}>{number(figures.completionTokens)}</Figure>
        <Figure name={t("playground.first_token")}>{duration(answer.firstToken)}</Figure>
        <Figure name={t("playground.total_time")}>{duration(answer.total)}</Figure>
        <Figure name={t("playground.price")}>{money(figures.microusd)}</Figure>
      </dl>
      {figures.estimated && <p className="quiet">{t("playground.estimated")}</p>}
    </div>
  );
}

function Figure({ name, children }: { name: string; children: ReactNode }) {
  return (
    <div>
      <dt>{name}</dt>
      <dd className="number">{children}</dd>
    </div>
  );
}
