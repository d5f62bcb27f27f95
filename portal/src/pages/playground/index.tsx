import { useEffect, useRef, useState } from "react";
import { useText } from "../../i18n";
import { Button, ButtonLink, Empty, ErrorNote, Page, Waiting } from "../../ui";
import { SIDES, type Side, type Turn } from "./answer";
import { useChosen } from "./chosen";
import { Composer } from "./composer";
import { useConversation } from "./conversation";
import { Invitation } from "./invitation";
import { ModelChoice } from "./model_choice";
import { type Names, useNames } from "./names";
import styles from "./playground.module.css";
import { AT_FIRST, hasProblem, messagesOf } from "./settings";
import { SettingsPanel } from "./settings_panel";
import { TurnView } from "./turn_view";

/** Ask one model, or a teacher and its student side by side. */
export default function PlaygroundPage() {
  const t = useText();
  const { names, error, retry } = useNames();
  return (
    <Page title={t("playground.title")} text={t("playground.text")}>
      {error && <ErrorNote error={error} onRetry={retry} />}
      {!names && !error && <Waiting />}
      {names && (names.all.length ? <Playground names={names} /> : <NobodyThere />)}
    </Page>
  );
}

function Playground({ names }: { names: Names }) {
  const t = useText();
  const { chosen, ready, choose } = useChosen(names);
  const [settings, setSettings] = useState(AT_FIRST);
  const [prompt, setPrompt] = useState("");
  const [open, setOpen] = useState(isWide);
  const { turns, running, ask, again, stop, clear } = useConversation();
  useKeptInView(turns);
  const before = (at: number, side: Side) =>
    messagesOf(settings.system, turns.slice(0, at), side, "")
      .map((message) => message.content)
      .join("");
  return (
    <div className={styles.frame} data-open={open}>
      <div className={styles.head}>
        {SIDES.map((side) => (
          <ModelChoice
            key={side}
            side={side}
            value={chosen[side]}
            names={names}
            disabled={running || !ready}
            onChoose={(name) => choose({ ...chosen, [side]: name })}
          />
        ))}
        <div className={styles.tools}>
          <Button icon="filter" aria-expanded={open} aria-controls="settings" onClick={() => setOpen(!open)}>
            {t("playground.settings")}
          </Button>
          <Button icon="trash" disabled={!turns.length} onClick={clear}>
            {t("playground.clear")}
          </Button>
        </div>
      </div>
      {open && <SettingsPanel settings={settings} onChange={setSettings} chosen={chosen} />}
      <div className={styles.talk}>
        {turns.length === 0 && (
          <Invitation
            models={[chosen.left, chosen.right]}
            onQuestion={(question) => {
              setSettings((before) => ({ ...before, system: question.system }));
              setPrompt(question.prompt);
            }}
          />
        )}
        <ol className={styles.turns} aria-label={t("playground.conversation")}>
          {turns.map((turn, at) => {
            const isLast = at === turns.length - 1;
            return (
              <TurnView
                key={turn.id}
                turn={turn}
                names={names}
                before={(side) => before(at, side)}
                onAgain={isLast && !running ? (side) => again(side, turn[side]?.model ?? "", settings) : undefined}
              />
            );
          })}
        </ol>
        <p className="unseen" role="status">
          {turns.length > 0 && (running ? t("playground.answering") : t(outcomeOf(turns.at(-1))))}
        </p>
        <Composer
          prompt={prompt}
          onPrompt={setPrompt}
          running={running}
          hasSystem={settings.system.trim() !== ""}
          hindrance={hindranceOf(chosen, hasProblem(settings), t)}
          onSend={(prompt) => ask(prompt, chosen, settings)}
          onStop={stop}
        />
      </div>
    </div>
  );
}

function outcomeOf(turn: Turn | undefined) {
  const answers = SIDES.flatMap((side) => turn?.[side] ?? []);
  const failed = answers.filter((answer) => answer.state === "failed").length;
  if (failed === 0) return "playground.answered" as const;
  return failed === answers.length ? ("playground.none_answered" as const) : ("playground.one_answered" as const);
}

function hindranceOf(chosen: Record<Side, string>, wrong: boolean, t: ReturnType<typeof useText>): string | null {
  if (!chosen.left && !chosen.right) return t("playground.choose_first");
  return wrong ? t("playground.settings_wrong") : null;
}

const isWide = () => window.matchMedia("(min-width: 1200px)").matches;
const NEAR_PX = 160;

/** Follows the answers as they grow, unless the reader has scrolled away from them. */
function useKeptInView(turns: Turn[]) {
  const follows = useRef(true);
  const count = turns.length;
  useEffect(() => {
    const look = () => {
      const { scrollHeight, clientHeight, scrollTop } = document.documentElement;
      follows.current = scrollHeight - clientHeight - scrollTop < NEAR_PX;
    };
    document.addEventListener("scroll", look, { passive: true });
    return () => document.removeEventListener("scroll", look);
  }, []);
  useEffect(() => {
    if (count) follows.current = true;
  }, [count]);
  useEffect(() => {
    if (turns.length && follows.current) window.scrollTo({ top: document.documentElement.scrollHeight });
  }, [turns]);
}

function NobodyThere() {
  const t = useText();
  return (
    <Empty title={t("playground.empty_title")}>
      <p>{t("playground.empty_text")}</p>
      <div className="row">
        <ButtonLink kind="primary" to="/models" icon="models">
          {t("playground.to_models")}
        </ButtonLink>
      </div>
    </Empty>
  );
}
