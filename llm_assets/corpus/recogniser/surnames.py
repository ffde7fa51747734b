"""Chinese surnames and titles. The surnames are those of the Hundred Family Surnames (百家姓, 10th century), and newer ones.

Left out are those that are rare as surnames and frequent as words, such as 和, 有 and 明.
"""

from __future__ import annotations

SINGLE = frozenset(
    "赵钱孙李周吴郑王冯陈褚卫蒋沈韩杨朱秦尤许何吕施张孔曹严华金魏陶姜戚谢邹喻柏窦章云苏潘葛奚范彭郎鲁韦马苗方俞任袁柳酆鲍史唐费廉岑薛雷贺倪汤滕殷"
    "罗毕郝邬安常乐于时傅皮卞齐康伍余卜顾孟黄穆萧尹姚邵湛汪祁毛禹狄米贝臧计伏成戴谈宋茅庞熊纪舒屈项祝董梁杜阮蓝闵席季麻强贾路娄危江童颜郭梅盛林刁"
    "钟徐邱骆高夏蔡田樊胡凌霍虞万支柯昝管卢莫经房裘缪干解应宗丁宣贲邓郁单杭洪包诸左石崔吉钮龚程嵇邢裴陆荣翁荀羊於惠甄曲封芮羿储靳汲邴糜段巫乌焦弓"
    "牧隗谷车侯宓蓬郗班仰秋仲伊宫宁仇栾甘钭厉戎祖武符刘景詹束龙叶幸韶郜黎蓟印宿白蒲邰鄂赖卓蔺屠蒙池乔胥苍闻莘党翟谭劳逄姬申扶堵冉宰郦雍璩桑桂濮牛"
    "边扈燕冀郏浦尚温庄晏柴瞿阎慕连茹习宦艾鱼向古易戈廖庾暨衡耿弘匡文寇阙欧殳沃蔚夔师巩厍聂晁敖冷訾辛阚简饶曾沙乜鞠丰巢关蒯查荆游竺权逯盖桓佟岳帅"
    "缑亢况商牟佘墨哈谯笪阳肖付闫覃冼邸代兰郄邝官苑苟迟隋楼涂仝麦粟丛亓丘鄢辜萨翦衣谌晋佀禤綦揭芦肇呼"
)
COMPOUND = frozenset(
    (  # noqa: SIM905
        "欧阳 司马 诸葛 上官 东方 皇甫 尉迟 公孙 令狐 司徒 慕容 南宫 夏侯 端木 宇文 长孙 轩辕 独孤 西门 百里 呼延 闻人 澹台 公冶 宗政 濮阳 "
        "淳于 太叔 申屠 仲孙 钟离 鲜于 闾丘 司空 东郭 拓跋 完颜"
    ).split()
)
TITLES = frozenset(  # after a surname they leave it a surname: 王先生 names nobody
    (  # noqa: SIM905
        "先生 女士 小姐 太太 夫人 老师 教授 博士 医生 大夫 护士 律师 经理 总裁 老板 主任 书记 主席 总理 部长 局长 处长 科长 校长 院长 厂长 队长 站长 "
        "店长 领班 师傅 同志 同学 导演 导游 司机 阿姨 大妈 大爷 大哥 大姐 妹妹 姐姐 哥哥 叔叔"
    ).split()
)
