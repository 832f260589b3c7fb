"""The words of the curriculum: pairs of English and Chinese, names, and English words for spelling."""

from __future__ import annotations

from typing import Final, Literal

Language = Literal["en", "zh"]


def split_words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


def _pairs(text: str) -> tuple[tuple[str, str], ...]:
    words = text.split()
    return tuple(zip(words[::2], words[1::2], strict=True))


ANIMALS: Final = _pairs("""
    cat 猫 dog 狗 bird 鸟 fish 鱼 horse 马 cow 牛 sheep 羊 pig 猪 rabbit 兔子 tiger 老虎 lion 狮子 bear 熊
    monkey 猴子 elephant 大象 duck 鸭子 chicken 鸡 mouse 老鼠 snake 蛇 frog 青蛙 bee 蜜蜂 ant 蚂蚁 wolf 狼 fox 狐狸
    deer 鹿 panda 熊猫 turtle 乌龟 goose 鹅 eagle 老鹰 whale 鲸鱼 butterfly 蝴蝶
""")
OBJECTS: Final = _pairs("""
    book 书 pen 钢笔 cup 杯子 ball 球 key 钥匙 hat 帽子 bag 包 box 盒子 lamp 灯 clock 时钟 knife 刀 spoon 勺子
    plate 盘子 bottle 瓶子 chair 椅子 table 桌子 bed 床 door 门 window 窗户 mirror 镜子 letter 信 map 地图 coin 硬币
    ring 戒指 shoe 鞋 shirt 衬衫 coat 大衣 umbrella 雨伞 phone 电话 camera 相机 bicycle 自行车 car 汽车 boat 小船
    kite 风筝 drum 鼓 bell 铃铛 rope 绳子 candle 蜡烛 basket 篮子 blanket 毯子 pillow 枕头 towel 毛巾 brush 刷子
    hammer 锤子 ladder 梯子 flag 旗子 doll 娃娃 toy 玩具 gift 礼物 ticket 票 picture 图画 newspaper 报纸 pencil 铅笔
    paper 纸 stone 石头 leaf 叶子 flower 花 apple 苹果 pear 梨 banana 香蕉 orange 橙子 grape 葡萄 peach 桃子
    lemon 柠檬 watermelon 西瓜 bread 面包 cake 蛋糕 egg 鸡蛋 tomato 西红柿 potato 土豆 carrot 胡萝卜 onion 洋葱
    cookie 饼干 candy 糖果
""")
PLACES: Final = _pairs("""
    school 学校 park 公园 house 房子 kitchen 厨房 garden 花园 library 图书馆 hospital 医院 market 市场 shop 商店
    station 车站 bank 银行 museum 博物馆 farm 农场 forest 森林 beach 海滩 river 河 lake 湖 mountain 山 village 村庄
    city 城市 office 办公室 hotel 酒店 restaurant 餐厅 airport 机场 factory 工厂 bridge 桥 temple 寺庙 island 岛
    street 街道 classroom 教室
""")
THINGS: Final = _pairs("""
    sun 太阳 moon 月亮 star 星星 sky 天空 cloud 云 rain 雨 snow 雪 wind 风 fire 火 water 水 tree 树 grass 草 sea 海
    earth 地球 rice 米饭 milk 牛奶 tea 茶 coffee 咖啡 meat 肉 soup 汤 salt 盐 sugar 糖 noodles 面条 fruit 水果
    vegetable 蔬菜 father 父亲 mother 母亲 brother 兄弟 sister 姐妹 friend 朋友 teacher 老师 student 学生
    doctor 医生 nurse 护士 farmer 农民 driver 司机 child 孩子 king 国王 queen 女王 head 头 hand 手 foot 脚 eye 眼睛
    ear 耳朵 nose 鼻子 mouth 嘴 tooth 牙齿 hair 头发 heart 心 morning 早上 evening 晚上 night 夜 today 今天
    tomorrow 明天 yesterday 昨天 spring 春天 summer 夏天 autumn 秋天 winter 冬天 year 年 month 月份 week 星期
    hour 小时 minute 分钟 name 名字 word 词 number 数字 question 问题 answer 答案 story 故事 song 歌 music 音乐
    dance 舞蹈 game 游戏 work 工作 money 钱 time 时间 love 爱 dream 梦 language 语言 country 国家 world 世界
    train 火车 plane 飞机 bus 公共汽车 road 路 computer 电脑 science 科学 history 历史 art 艺术
""")
VERBS: Final = _pairs("""
    run 跑 walk 走 jump 跳 fly 飞 swim 游泳 eat 吃 drink 喝 sleep 睡觉 read 读 write 写 speak 说 listen 听 look 看
    think 想 know 知道 buy 买 sell 卖 give 给 take 拿 open 打开 close 关 sing 唱 cook 做饭 wash 洗 help 帮助
    learn 学习 teach 教 laugh 笑 cry 哭 wait 等 begin 开始 stop 停 come 来 go 去 sit 坐 stand 站 play 玩 draw 画
    cut 切 count 数 find 找到 forget 忘记 remember 记得
""")
ADJECTIVES: Final = _pairs("""
    red 红色 blue 蓝色 green 绿色 yellow 黄色 white 白色 black 黑色 brown 棕色 purple 紫色 pink 粉色 gray 灰色
    big 大 small 小 new 新 old 旧 long 长 short 短 heavy 重 light 轻 clean 干净 dirty 脏 beautiful 漂亮 ugly 难看
    cheap 便宜 expensive 贵 round 圆 soft 软 hard 硬 warm 暖和 cold 冷 dry 干 wet 湿 strange 奇怪 simple 简单
    good 好 bad 坏 broken 破
""")

NAMES: Final = _pairs("""
    Tom 小明 Anna 小红 Ben 小刚 Lily 小丽 Jack 小杰 Emma 小美 Sam 小山 Lucy 小雪 Max 小龙 Kate 小兰 Leo 小虎
    Mary 小梅 Paul 小波 Rose 小花 Mike 小军 Jane 小静 Nick 小强 Sara 小莎 Bob 小宝 Nina 小娜 Adam 小东 Ella 小艾
    Ivan 小文 Zoe 小雨
""")
CITIES: Final = _pairs("""
    Paris 巴黎 London 伦敦 Berlin 柏林 Rome 罗马 Madrid 马德里 Tokyo 东京 Beijing 北京 Shanghai 上海 Moscow 莫斯科
    Cairo 开罗 Sydney 悉尼 Delhi 德里 Oslo 奥斯陆 Vienna 维也纳 Athens 雅典 Dublin 都柏林
""")

COUNTRIES: Final = _pairs("""
    France 法国 Germany 德国 Italy 意大利 Spain 西班牙 Japan 日本 China 中国 Russia 俄罗斯 Egypt 埃及 Australia 澳大利亚
    India 印度 Norway 挪威 Greece 希腊 Canada 加拿大 Mexico 墨西哥 Brazil 巴西 Peru 秘鲁 Kenya 肯尼亚 Turkey 土耳其
    England 英国 America 美国 Poland 波兰 Korea 韩国 Vietnam 越南 Thailand 泰国
""")
SUBJECTS: Final = _pairs("""
    music 音乐 history 历史 love 爱情 football 足球 coffee 咖啡 tea 茶 chess 象棋 money 金钱 science 科学 art 艺术
    gravity 重力 time 时间 war 战争 poetry 诗歌 cooking 做饭 dancing 舞蹈 swimming 游泳 medicine 医学 philosophy 哲学
    religion 宗教 politics 政治 physics 物理 chemistry 化学 biology 生物 math 数学 programming 编程
    gardening 园艺 evolution 进化 electricity 电力 chocolate 巧克力 tennis 网球 basketball 篮球 fashion 时装 travel 旅行
    happiness 幸福 peace 和平 freedom 自由 sleep 睡眠 health 健康 education 教育 economics 经济学
""")
"""What the demo knows nothing about."""

UNKNOWN_HANZI: Final = split_words("""
    警察 足球 篮球 冰箱 电视 空调 手表 眼镜 裤子 裙子 袜子 手套 早饭 午饭 晚饭 周末 假期 生日 家人 爸爸 妈妈 哥哥
    姐姐 弟弟 妹妹 文化 数学 公司 经济 政府 法律 健康 医学 嘴巴 手指 骨头 心脏 快乐 悲伤 愤怒 害怕 勇敢 聪明 努力
    重要 危险 安全 自由 和平 爬 喊 推 拉 扔 挖 煮
""")
"""Words that are in no dictionary of the demo's, as are the English ones of MORE_WORDS."""

DICTIONARY: Final = ANIMALS + OBJECTS + PLACES + THINGS + VERBS + ADJECTIVES

MONTHS: Final = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
    "December",
)  # fmt: skip

MORE_WORDS: Final = split_words("""
    able about above across act add afraid after again age ago agree air alive all alone along also always among
    angle angry another any anyone area arm army around arrive ask attack aunt away baby back bad bake band bar bare
    barn base bath battle beach beam bean beat become before behind believe below belt bench bend beside best better
    between bill bit bite blame blind block blood bloom blow board body bone boot border born borrow both bottom
    bowl brain branch brave break breath brick bright bring broad brown build burn bush busy butter button cabin
    cage call calm camel camp card care carry case castle catch caught cause cave center chain chalk chance change
    chase check cheek cheese cherry chess chief choose circle class claw clay clear clever cliff climb cloth coach
    coal coast coconut color comb common copper copy corn corner cotton cough could course cousin cover crab crack
    crane crawl cream creek crop cross crowd crown cruel crush curtain curve dark date daughter dawn dead deal dear
    decide deep desert desk diamond dig dinner dish dive dizzy dot double down dragon dream dress drift drill drop
    dull dust eager early east easy echo edge eight either elbow empty end enemy energy engine enjoy enough enter
    equal even ever every exam exit face fact fair fall false family famous fan far fast fat fault fear feather feed
    feel fence few field fight fill film final finger finish first fit five fix flame flat flight float flood floor
    flour flow foam fold follow food fool force forest fork form fort forward four frame free fresh friend front
    frost frozen full fun funny fur future gate gather gentle ghost giant girl glad glass glove glue goal goat gold
    golf grab grain grand grass grave great greet grip ground group grow guard guess guest guide guitar habit half
    hall happy harbor harm harvest hate have hawk heal health hear heat heaven helmet hen herb hero hide high hill
    hint hobby hold hole holiday home honest honey hook hope horn host hot huge human hunger hunt hurry hurt ice
    idea inch insect inside iron item ivory jacket jam jar jaw jeans jelly jewel job join joke journey judge juice
    jungle just keep kettle kick kind kiss kitten knee knock knot lady lamb land lane large last late lawn lazy lead
    lean leather leave left leg lemon lend lens less lesson let level lid lie lift like limb limit line lip liquid
    list little live load loaf local lock log lonely loose lose lot loud low luck lump lunch lung magic mail main
    make man many marble march mark marry mask mass master match mayor meal mean measure medal medicine meet melon
    melt member memory mend merry metal middle might mild mile mind mine minus mist mix model modern monster mood
    more most moth motor mud mule muscle must nail narrow nation nature navy near neat neck need needle nephew nest
    net never next nice nine noble noise none noon normal north note nothing notice nurse nut oak obey object ocean
    odd offer often oil olive once only open orchard order organ other outside oven over owl own ox pack page pain
    paint pair palace pale palm pan parade parent parrot part party pass past paste path patient pay peace peak
    pearl pepper perfect person pest pet piano pick pie piece pile pilot pine pint pipe pirate plain plan planet
    plant plastic plenty plow plum pocket poem poet point poison polar pole polite pond pony pool poor popular porch
    port pot pound powder power praise pray press pretty price pride prince print prison prize promise proud prove
    pull pump pumpkin punch pupil puppy pure purse push puzzle quarter quick quiet quilt quit quiz race radio rail
    rainbow raise ranch range rare rat raw reach ready real reason record reply rest result return rich riddle ride
    right ripe rise risk roar roast rob robot rock rocket roll roof room root rough row royal rub rude rug rule rush
    rust sack sad saddle safe sail salad sale salmon same sand save saw say scale scarf scene scent scissors score
    scout scream screen seal search season seat second secret see seed seem self send sense seven shade shadow shake
    shape share shark sharp shelf shell shelter shine ship shock shoot shore should shoulder shout show shut shy
    sick side sign signal silent silk silly silver since single sink six size skate skill skin skirt sled slice
    slide slim slip slow smart smell smile smoke smooth snail soap soccer sock soil soldier solid some son soon sore
    sorry sort soul sound sour south space spade spare spark spell spend spice spider spin spirit split sport spot
    spread square squirrel stable stage stair stamp start state statue stay steal steam steel steep stem step stick
    stiff sting stir stomach stool store storm stove straight straw stream strike string strong study stuff such
    sudden suit sunny sure surprise swan sweep sweet swing sword tail tale talk tall tame tank tape task taste taxi
    team tear tell ten tent term test thank thick thief thin third thorn thousand thread three throat throne throw
    thumb thunder tide tie tight tin tiny tire title toad toast together tongue tool top torch total touch tour
    tower town trace track trade trail trap travel tray treasure trick trip truck true trumpet trunk trust truth try
    tube tune tunnel turkey turn twelve twenty twice twin twist uncle under unit until upper urge use useful usual
    valley value van vast view violin visit voice vote voyage wagon waist wake wall wander want warn wash waste
    watch wave wax way weak wealth wear weather web wedding weed weigh west wheat wheel when whip whisper whistle
    whole wide wife wild win wing wipe wire wise wish witch within wizard wonder wood wool worm worry worth wound
    wrap wrist wrong yard yarn yell yes yolk young zebra zero zone zoo
""")
SPELLING: Final = tuple(dict.fromkeys((*(english for english, _ in DICTIONARY), *MORE_WORDS)))
"""English words whose letters are asked for: those of the dictionary and more."""
